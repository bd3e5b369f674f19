"""What this machine and model allow: cache size, known options."""

from __future__ import annotations

import os

import msgspec

from argosy.core.engine import EngineSettings
from argosy.core.errors import SpecError
from argosy.core.model import ModelInfo
from argosy.engines.openvino.messages import Load

# engine_args → OpenVINO's properties. Source: openvino, supported properties of the CPU plug-in.
PROPERTIES = {
    "kv_cache_precision": "KV_CACHE_PRECISION",
    "inference_precision": "INFERENCE_PRECISION_HINT",
    "dynamic_quantization_group_size": "DYNAMIC_QUANTIZATION_GROUP_SIZE",
}
DEFAULT_MAX_NUM_SEQS = 64
DEFAULT_MAX_NUM_BATCHED_TOKENS = 512
# Enough for 32 conversations of 1,024 tokens beside one of the model's full length; small enough for a laptop.
_DEFAULT_CONVERSATIONS = 32
_DEFAULT_CONVERSATION_TOKENS = 1024
_MEMORY_SHARE = 0.4
# Keys and values as unsigned bytes, with a scale and a zero point (float32) per head and token.
_U8_OVERHEAD_BYTES = 8


def kv_bytes_per_token(info: ModelInfo) -> int:
    """Bytes of OpenVINO's u8 KV cache for one token. Source: openvino, CPU plug-in, paged attention (u8 by channel)."""
    return info.kv_bytes_per_token(1) + 2 * info.num_kv_heads * info.num_layers * _U8_OVERHEAD_BYTES


def kv_cache_tokens(info: ModelInfo, settings: EngineSettings, max_model_len: int) -> int:
    """How many tokens the KV cache should hold."""
    per_token = kv_bytes_per_token(info)
    if settings.kv_cache_bytes is not None:
        return settings.kv_cache_bytes // per_token
    wanted = max_model_len + _DEFAULT_CONVERSATIONS * _DEFAULT_CONVERSATION_TOKENS
    affordable = int(_total_memory_bytes() * _MEMORY_SHARE) // per_token
    return min(wanted, affordable)


def checker_load(load: Load) -> Load:
    """The constraint checker's process: the same vocabulary, next to no cache."""
    settings = EngineSettings(max_num_seqs=1)
    return msgspec.structs.replace(load, settings=settings, kv_cache_tokens=1024, is_checker=True)


def require_known_arguments(settings: EngineSettings) -> None:
    """Raises: SpecError naming what the engine does not know."""
    unknown = sorted(set(settings.engine_args) - PROPERTIES.keys())
    if unknown:
        raise SpecError(f"engine_args {', '.join(unknown)}: the openvino engine knows {', '.join(PROPERTIES)}")


def _total_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
