"""What a model may claim of itself: every number bounded before anyone sizes memory by it (D-08)."""

from __future__ import annotations

import math
import re

import msgspec

from argosy.core.errors import InvalidRequest, SpecError
from argosy.core.model import ModelInfo
from argosy.core.sampling import SamplingOverrides, resolve_sampling

# Each limit is some ten times the largest open model of 2026 (Llama 3.1 405B, DeepSeek-V3, Kimi K2, Gemma 3).
_LIMITS = {
    "num_layers": 1_024,
    "hidden_size": 131_072,
    "num_heads": 4_096,
    "num_kv_heads": 4_096,
    "head_dim": 4_096,
    "vocab_size": 4_194_304,
    "max_model_len": 100_000_000,
}
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers as a file states them, unchecked. source: the file, for messages."""

    source: str
    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_model_len: int


def checked_info(
    facts: ModelFacts,
    *,
    dtype: str,
    num_parameters: int,
    weight_bytes: int,
    is_encoder_decoder: bool,
    sampling_defaults: SamplingOverrides,
) -> ModelInfo:
    """The facts as a `ModelInfo`. Raises: SpecError naming the field, its value and its bounds."""
    if not _ARCHITECTURE.fullmatch(facts.architecture):
        raise SpecError(f"{facts.source}: architecture {facts.architecture[:64]!r} is not a family name")
    for field, limit in _LIMITS.items():
        value = getattr(facts, field)
        if not 1 <= value <= limit:
            raise SpecError(
                f"{facts.source}: {field} is {value}, must be in [1, {limit}]: the file is damaged or hostile; "
                "fetch the model from its maker"
            )
    if facts.num_heads % facts.num_kv_heads:
        raise SpecError(
            f"{facts.source}: num_kv_heads is {facts.num_kv_heads}, must divide num_heads {facts.num_heads}"
        )
    return ModelInfo(
        architecture=facts.architecture,
        num_layers=facts.num_layers,
        hidden_size=facts.hidden_size,
        num_heads=facts.num_heads,
        num_kv_heads=facts.num_kv_heads,
        head_dim=facts.head_dim,
        vocab_size=facts.vocab_size,
        max_model_len=facts.max_model_len,
        dtype=dtype,
        num_parameters=num_parameters,
        weight_bytes=weight_bytes,
        is_encoder_decoder=is_encoder_decoder,
        sampling_defaults=checked_defaults(facts.source, sampling_defaults),
    )


def checked_defaults(source: str, defaults: SamplingOverrides) -> SamplingOverrides:
    """The defaults, if a request without settings of its own could run with them. Raises: SpecError."""
    for field in SamplingOverrides.__struct_fields__:
        value = getattr(defaults, field)
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"{source}: sampling default {field} is {value}, must be a finite number")
    try:
        resolve_sampling(SamplingOverrides(), defaults, remaining_tokens=1)
    except InvalidRequest as error:
        raise SpecError(f"{source}: sampling default: {error.message} Correct the file.") from error
    return defaults
