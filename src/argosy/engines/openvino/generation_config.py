"""SamplingParams → the fields of openvino_genai.GenerationConfig. Pure; a table in the tests."""

from __future__ import annotations

from typing import Any

from argosy.core.engine import EngineFeature
from argosy.core.sampling import SamplingParams

# Below this, dividing logits by the temperature overflows and every draw is the likeliest token anyway.
# Source: vLLM, SamplingParams (_SAMPLING_EPS).
GREEDY_TEMPERATURE = 1e-5

FEATURES = frozenset(
    {
        EngineFeature.SAMPLING,
        EngineFeature.SEED,
        EngineFeature.TOP_P,
        EngineFeature.TOP_K,
        EngineFeature.MIN_P,
        EngineFeature.PRESENCE_PENALTY,
        EngineFeature.FREQUENCY_PENALTY,
        EngineFeature.REPETITION_PENALTY,
        EngineFeature.MIN_TOKENS,
        EngineFeature.IGNORE_EOS,
        EngineFeature.STOP_TOKEN_IDS,
        EngineFeature.LOGPROBS,
        EngineFeature.TOP_LOGPROBS,
    }
)
CONSTRAINTS = frozenset(
    {
        EngineFeature.JSON_SCHEMA,
        EngineFeature.JSON_OBJECT,
        EngineFeature.REGEX,
        EngineFeature.CHOICE,
        EngineFeature.GRAMMAR,
    }
)


def generation_config(params: SamplingParams, *, fallback_seed: int) -> dict[str, Any]:
    """The fields that make OpenVINO GenAI sample as `params` says.

    fallback_seed: for requests without one; the library's own default is 0 for all, so that unseeded requests would
    repeat each other.
    The set stop_token_ids travels beside the fields: msgpack has no sets.
    Source: openvino_genai.GenerationConfig (2026.4); the library stops on any of stop_token_ids unless ignore_eos,
    and puts in the model's own eos id unless eos_token_id is set.
    """
    fields: dict[str, Any] = {
        "max_new_tokens": params.max_tokens,
        "min_new_tokens": params.min_tokens,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "repetition_penalty": params.repetition_penalty,
        "logprobs": 0 if params.logprobs is None else 1,
        "apply_chat_template": False,
    }
    if params.stop_token_ids:
        fields["eos_token_id"] = params.stop_token_ids[0]
    else:
        fields |= {"ignore_eos": True, "min_new_tokens": 0}
    if params.temperature < GREEDY_TEMPERATURE:
        return fields | {"do_sample": False}
    fields |= {
        "do_sample": True,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "rng_seed": fallback_seed if params.seed is None else params.seed,
    }
    if params.top_k:
        fields["top_k"] = params.top_k
    return fields
