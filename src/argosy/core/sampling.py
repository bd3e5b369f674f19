"""How the next token is chosen: what a request may ask, and what an engine is told.

`SamplingOverrides` is a partial answer (every field may be unset): a request carries one, and so does a model
(its generation_config.json). `resolve_sampling` lays request over model over the field's common defaults, checks
every value, and returns the only thing engines see: `SamplingParams`, complete and valid.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from argosy.core.errors import InvalidRequest

MAX_SEED = 2**63 - 1
MAX_LOGPROBS = 20  # OpenAI's limit of `top_logprobs`.
MAX_LOGIT_BIAS_ENTRIES = 300  # OpenAI's documented limit is the vocabulary's; vLLM users send at most hundreds.


class ConstraintKind(StrEnum):
    """What the output must match."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """A rule the whole output must obey. `text` holds the schema (JSON), the pattern or the grammar (EBNF)."""

    kind: ConstraintKind
    text: str = ""
    choices: tuple[str, ...] = ()


class SamplingOverrides(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling settings of which any may be unset (None): a request's, or a model's own defaults."""

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    ignore_eos: bool | None = None
    stop_token_ids: tuple[int, ...] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: tuple[int, ...] | None = None
    constraint: Constraint | None = None


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """Complete, valid sampling settings. `temperature == 0` means greedy.

    logprobs: None = none wanted; 0 = of the chosen token; k = also of the k likeliest.
    Source: names and meanings of vLLM's SamplingParams.
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] = {}
    allowed_token_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether every step takes the likeliest token."""
        return self.temperature == 0.0


class TextParams(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to the text after sampling. Engines never see it.

    stop: strings that end the answer; not part of it unless `include_stop`.
    """

    stop: tuple[str, ...] = ()
    include_stop: bool = False
    skip_special_tokens: bool = True


def resolve_sampling(
    request: SamplingOverrides, defaults: SamplingOverrides, *, remaining_tokens: int
) -> SamplingParams:
    """The request laid over the model's defaults, complete and checked.

    Units: remaining_tokens is what the context holds after the prompt; it becomes max_tokens when unset.
    Raises: InvalidRequest naming field, value and remedy.
    Source: value rules and their texts are vLLM's (SamplingParams._verify_args).
    """
    chosen: dict[str, object] = {}
    for name in SamplingOverrides.__struct_fields__:
        value = getattr(request, name)
        if value is None:
            value = getattr(defaults, name)
        if value is not None:
            chosen[name] = value
    if chosen.get("seed") == -1:
        del chosen["seed"]
    if chosen.get("top_k") == -1:
        chosen["top_k"] = 0
    chosen.setdefault("max_tokens", max(remaining_tokens, 1))
    params = SamplingParams(**chosen)  # type: ignore[arg-type]  # same field names, checked by a test
    _check(params)
    return params


def _check(params: SamplingParams) -> None:
    _require_finite(params)
    _require(params.temperature >= 0, "temperature", params.temperature, "temperature must be non-negative")
    _require(params.temperature <= 2, "temperature", params.temperature, "temperature must be in [0, 2]")
    _require(0 < params.top_p <= 1, "top_p", params.top_p, "top_p must be in (0, 1]")
    _require(0 <= params.min_p <= 1, "min_p", params.min_p, "min_p must be in [0, 1]")
    _require(0 <= params.top_k <= 2**31 - 1, "top_k", params.top_k, "top_k must be 0 (disable), or at least 1")
    for name in ("presence_penalty", "frequency_penalty"):
        value = getattr(params, name)
        _require(-2 <= value <= 2, name, value, f"{name} must be in [-2, 2]")
    _require(
        0 < params.repetition_penalty <= 100,
        "repetition_penalty",
        params.repetition_penalty,
        "repetition_penalty must be greater than zero and at most 100",
    )
    _require(params.max_tokens >= 1, "max_tokens", params.max_tokens, "max_tokens must be at least 1")
    _require(
        0 <= params.min_tokens <= params.max_tokens,
        "min_tokens",
        params.min_tokens,
        f"min_tokens must be at least 0 and at most max_tokens={params.max_tokens}",
    )
    if params.seed is not None:
        _require(0 <= params.seed <= MAX_SEED, "seed", params.seed, f"seed must be in [0, {MAX_SEED}]")
    for name, field in (("top_logprobs", params.logprobs), ("prompt_logprobs", params.prompt_logprobs)):
        if field is not None:
            _require(0 <= field <= MAX_LOGPROBS, name, field, f"{name} must be in [0, {MAX_LOGPROBS}]")
    _require(
        len(params.logit_bias) <= MAX_LOGIT_BIAS_ENTRIES,
        "logit_bias",
        len(params.logit_bias),
        f"logit_bias holds at most {MAX_LOGIT_BIAS_ENTRIES} entries",
    )
    for bias in params.logit_bias.values():
        _require(-100 <= bias <= 100, "logit_bias", bias, "logit_bias values must be in [-100, 100]")


def _require_finite(params: SamplingParams) -> None:
    for name in SamplingParams.__struct_fields__:
        value = getattr(params, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRequest(f"{name} must be a finite number, got {value}: send a number", param=name)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise InvalidRequest(f"{rule}, got {value}.", param=name)
