"""The checks between what was asked and what an engine is given. Pure: a request that passes them is valid."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from argosy.core.adapter import Adapter
from argosy.core.engine import EngineFeature, EngineInfo
from argosy.core.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from argosy.core.generation import GenerateRequest
from argosy.core.sampling import (
    MAX_SEED,
    Constraint,
    SamplingOverrides,
    SamplingParams,
    resolve_sampling,
)
from argosy.serving.options import GenerateOptions

MAX_ANSWERS = 128  # OpenAI's documented limit of `n`.

# Which feature a sampling field needs, and the value at which it needs none.
_NEEDS: tuple[tuple[str, EngineFeature, object], ...] = (
    ("temperature", EngineFeature.SAMPLING, 0.0),
    ("top_p", EngineFeature.TOP_P, 1.0),
    ("top_k", EngineFeature.TOP_K, 0),
    ("min_p", EngineFeature.MIN_P, 0.0),
    ("presence_penalty", EngineFeature.PRESENCE_PENALTY, 0.0),
    ("frequency_penalty", EngineFeature.FREQUENCY_PENALTY, 0.0),
    ("repetition_penalty", EngineFeature.REPETITION_PENALTY, 1.0),
    ("min_tokens", EngineFeature.MIN_TOKENS, 0),
    ("seed", EngineFeature.SEED, -1),
    ("ignore_eos", EngineFeature.IGNORE_EOS, False),
    ("stop_token_ids", EngineFeature.STOP_TOKEN_IDS, ()),
    ("logprobs", EngineFeature.LOGPROBS, None),
    ("prompt_logprobs", EngineFeature.PROMPT_LOGPROBS, None),
    ("logit_bias", EngineFeature.LOGIT_BIAS, {}),
    ("allowed_token_ids", EngineFeature.ALLOWED_TOKEN_IDS, ()),
)
# Fields that change nothing when the likeliest token is always taken.
_ONLY_WHEN_SAMPLING = frozenset({"top_p", "top_k", "min_p", "seed"})


def supported_defaults(
    defaults: SamplingOverrides, features: frozenset[EngineFeature]
) -> tuple[SamplingOverrides, tuple[str, ...]]:
    """A model's own defaults without those its engine lacks, and the names of the dropped ones (to be said once)."""
    dropped = tuple(
        name
        for name, feature, neutral in _NEEDS
        if getattr(defaults, name) not in (None, neutral) and feature not in features
    )
    return msgspec.structs.replace(defaults, **dict.fromkeys(dropped)), dropped


def check_features(asked: SamplingOverrides, info: EngineInfo) -> None:
    """Refuse by name what the request asks for and the engine lacks. Raises: UnsupportedParameter."""
    is_greedy = asked.temperature == 0
    for name, feature, neutral in _NEEDS:
        value = getattr(asked, name)
        if value is None or value == neutral or (is_greedy and name in _ONLY_WHEN_SAMPLING):
            continue
        _require_feature(name, feature, info)
    if asked.logprobs:
        _require_feature("top_logprobs", EngineFeature.TOP_LOGPROBS, info)
    if asked.constraint is not None:
        kind = asked.constraint.kind.value
        _require_feature(f"structured output of kind {kind}", EngineFeature(kind), info)


def _require_feature(name: str, feature: EngineFeature, info: EngineInfo) -> None:
    if feature not in info.features:
        raise UnsupportedParameter(
            f"{name} is not supported by the {info.name!r} engine that serves this model: "
            "leave it out, or serve the model with another engine",
            param=name.split(" ", 1)[0],
        )


def check_lengths(prompt_tokens: int, asked_max_tokens: int | None, max_model_len: int) -> int:
    """Tokens the context holds after the prompt.

    Raises: InvalidRequest if the prompt is empty; ContextLengthExceeded if the answer asked for does not fit.
    Source: the wording up to the colon is vLLM's; clients match on it to shorten their history.
    """
    if prompt_tokens == 0:
        raise InvalidRequest("the prompt has no tokens: send at least one", param="prompt")
    remaining = max_model_len - prompt_tokens
    limit = f"This model's maximum context length is {max_model_len} tokens. However, you requested "
    if remaining < 1:
        raise ContextLengthExceeded(
            f"{limit}{prompt_tokens} tokens in the prompt, which leaves no room for an answer: shorten the prompt",
            param="prompt",
        )
    if asked_max_tokens is not None and asked_max_tokens > remaining:
        raise ContextLengthExceeded(
            f"{limit}{prompt_tokens + asked_max_tokens} tokens ({prompt_tokens} in the prompt, "
            f"{asked_max_tokens} in the answer): shorten the prompt or lower max_tokens to {remaining}",
            param="max_tokens",
        )
    return remaining


def check_token_ids(token_ids: Iterable[int], vocab_size: int, param: str) -> None:
    """Refuse ids the model does not have. Raises: InvalidRequest."""
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(
                f"{param} holds {token_id}, but this model's token ids are 0 to {vocab_size - 1}", param=param
            )


def check_answers(n: int, sampling: SamplingParams, info: EngineInfo) -> None:
    """Refuse an `n` that makes no sense. Raises: InvalidRequest."""
    limit = min(MAX_ANSWERS, info.max_num_seqs)
    if not 1 <= n <= limit:
        raise InvalidRequest(f"n must be in [1, {limit}], got {n}.", param="n")
    if n > 1 and sampling.is_greedy:
        raise InvalidRequest(
            f"n must be 1 when using greedy sampling, as all answers would be the same: got n={n} and temperature=0.",
            param="n",
        )


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks need to know of a model. eos_token_ids: what ends its answers."""

    engine: EngineInfo
    vocab_size: int
    max_model_len: int
    eos_token_ids: frozenset[int]
    defaults: SamplingOverrides


def engine_requests(
    prompt_token_ids: tuple[int, ...],
    options: GenerateOptions,
    model: Checked,
    *,
    adapter: Adapter | None = None,
    constraint: Constraint | None = None,
) -> tuple[GenerateRequest, ...]:
    """One valid request per answer: the only place that makes them.

    constraint: one that the tool choice asks for, in place of the request's own.
    Raises: InvalidRequest, UnsupportedParameter, ContextLengthExceeded.
    """
    asked = options.sampling
    if constraint is not None:
        asked = msgspec.structs.replace(asked, constraint=constraint)
    check_features(asked, model.engine)
    for name in ("stop_token_ids", "logit_bias", "allowed_token_ids"):
        check_token_ids(getattr(asked, name) or (), model.vocab_size, name)
    remaining = check_lengths(len(prompt_token_ids), asked.max_tokens, model.max_model_len)
    defaults = model.defaults
    if defaults.max_tokens is not None and defaults.max_tokens > remaining:
        defaults = msgspec.structs.replace(defaults, max_tokens=remaining)
    sampling = resolve_sampling(asked, defaults, remaining_tokens=remaining)
    check_answers(options.n, sampling, model.engine)
    if not sampling.ignore_eos:
        ends = sorted(model.eos_token_ids.union(sampling.stop_token_ids))
        sampling = msgspec.structs.replace(sampling, stop_token_ids=tuple(ends))
    return tuple(
        GenerateRequest(
            request_id=options.request_id if options.n == 1 else f"{options.request_id}-{index}",
            prompt_token_ids=prompt_token_ids,
            sampling=_with_seed(sampling, index),
            adapter=adapter,
            priority=options.priority,
        )
        for index in range(options.n)
    )


def _with_seed(sampling: SamplingParams, index: int) -> SamplingParams:
    if sampling.seed is None or index == 0:
        return sampling
    return msgspec.structs.replace(sampling, seed=(sampling.seed + index) & MAX_SEED)
