"""Files and settings become a running pipeline. Runs in the child; imports OpenVINO."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import openvino
import openvino_genai

from argosy.core.engine import EngineSettings
from argosy.engines.openvino.messages import Load

# Tokens in one block of OpenVINO's paged KV cache on CPUs. Source: openvino.genai, cache manager (block size 32).
KV_BLOCK_TOKENS = 32
DEFAULT_MAX_NUM_SEQS = 64
DEFAULT_MAX_NUM_BATCHED_TOKENS = 512


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline ready to step, and what its start consisted of (seconds)."""

    pipeline: Any
    kv_cache_tokens: int
    max_num_seqs: int
    has_tokenizer: bool
    phases: dict[str, float]


def load_pipeline(load: Load) -> Loaded:
    """Read, compile and allocate. Raises: RuntimeError from OpenVINO, whose text names the cause."""
    began = time.perf_counter()
    scheduler = scheduler_config(load)
    pipeline = openvino_genai.ContinuousBatchingPipeline(
        load.model_path, scheduler, load.settings.device, _properties(load.settings)
    )
    return Loaded(
        pipeline=pipeline,
        kv_cache_tokens=scheduler.num_kv_blocks * KV_BLOCK_TOKENS,
        max_num_seqs=scheduler.max_num_seqs,
        has_tokenizer=True,
        phases={"load": time.perf_counter() - began},
    )


def scheduler_config(load: Load) -> Any:
    """How the batch is formed."""
    settings = load.settings
    config = openvino_genai.SchedulerConfig()
    config.num_kv_blocks = max(load.kv_cache_tokens // KV_BLOCK_TOKENS, 1)
    config.max_num_seqs = settings.max_num_seqs or DEFAULT_MAX_NUM_SEQS
    config.max_num_batched_tokens = settings.max_num_batched_tokens or DEFAULT_MAX_NUM_BATCHED_TOKENS
    config.enable_prefix_caching = settings.enable_prefix_caching
    config.dynamic_split_fuse = True
    return config


def _properties(settings: EngineSettings) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if settings.num_threads:
        properties["INFERENCE_NUM_THREADS"] = settings.num_threads
    return properties


def version() -> str:
    """OpenVINO GenAI's version, as it names itself."""
    return str(openvino_genai.__version__)


def tensor(ids: Any) -> Any:
    """A tensor over a numpy array."""
    return openvino.Tensor(ids)
