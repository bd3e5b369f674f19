"""Sampling: request over model over common defaults, and every value rule with vLLM's text."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.errors import InvalidRequest
from argosy.core.sampling import MAX_SEED, SamplingOverrides, SamplingParams, resolve_sampling

NO_DEFAULTS = SamplingOverrides()


def resolve(**fields: Any) -> SamplingParams:
    return resolve_sampling(SamplingOverrides(**fields), NO_DEFAULTS, remaining_tokens=100)


def test_every_override_is_a_param_of_the_same_name() -> None:
    assert SamplingOverrides.__struct_fields__ == SamplingParams.__struct_fields__


def test_request_wins_over_model_and_model_over_common_defaults() -> None:
    model = SamplingOverrides(temperature=0.2, top_k=50)
    params = resolve_sampling(SamplingOverrides(temperature=0.9), model, remaining_tokens=7)
    assert (params.temperature, params.top_k, params.top_p, params.max_tokens) == (0.9, 50, 1.0, 7)


def test_zero_in_the_request_is_a_value_not_an_absence() -> None:
    model = SamplingOverrides(temperature=0.7, top_k=20, seed=4)
    params = resolve_sampling(SamplingOverrides(temperature=0.0, top_k=0, seed=0), model, remaining_tokens=1)
    assert (params.temperature, params.top_k, params.seed, params.is_greedy) == (0.0, 0, 0, True)


def test_minus_one_switches_top_k_and_seed_off() -> None:
    params = resolve(top_k=-1, seed=-1)
    assert (params.top_k, params.seed) == (0, None)


@pytest.mark.parametrize(
    ("fields", "param", "text"),
    [
        ({"temperature": -0.1}, "temperature", "temperature must be non-negative"),
        ({"temperature": 2.1}, "temperature", "temperature must be in [0, 2]"),
        ({"temperature": math.nan}, "temperature", "temperature must be a finite number"),
        ({"top_p": math.inf}, "top_p", "top_p must be a finite number"),
        ({"top_p": 0.0}, "top_p", "top_p must be in (0, 1]"),
        ({"min_p": 1.5}, "min_p", "min_p must be in [0, 1]"),
        ({"top_k": -2}, "top_k", "top_k must be 0 (disable), or at least 1"),
        ({"presence_penalty": 3.0}, "presence_penalty", "presence_penalty must be in [-2, 2]"),
        ({"frequency_penalty": -3.0}, "frequency_penalty", "frequency_penalty must be in [-2, 2]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty", "repetition_penalty must be greater than zero"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens must be at least 1"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens", "at most max_tokens=4"),
        ({"min_tokens": -1}, "min_tokens", "min_tokens must be at least 0"),
        ({"seed": MAX_SEED + 1}, "seed", "seed must be in"),
        ({"seed": -2}, "seed", "seed must be in"),
        ({"logprobs": 21}, "top_logprobs", "top_logprobs must be in [0, 20]"),
        ({"prompt_logprobs": -1}, "prompt_logprobs", "prompt_logprobs must be in [0, 20]"),
        ({"logit_bias": {1: 101.0}}, "logit_bias", "logit_bias values must be in [-100, 100]"),
        ({"logit_bias": {1: math.nan}}, "logit_bias", "logit_bias values must be in [-100, 100]"),
        ({"logit_bias": dict.fromkeys(range(301), 1.0)}, "logit_bias", "at most 300 entries"),
    ],
)
def test_d26_a_bad_value_is_refused_by_name(fields: dict[str, Any], param: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve(**fields)
    assert caught.value.param == param
    assert text in caught.value.message


@given(
    st.builds(
        SamplingOverrides,
        max_tokens=st.none() | st.integers(-5, 2**64),
        temperature=st.none() | st.floats(),
        top_p=st.none() | st.floats(),
        top_k=st.none() | st.integers(-(2**40), 2**40),
        min_p=st.none() | st.floats(),
        seed=st.none() | st.integers(),
        repetition_penalty=st.none() | st.floats(),
    )
)
def test_what_resolves_is_within_every_limit(request_overrides: SamplingOverrides) -> None:
    refusal: InvalidRequest | None = None
    try:
        params = resolve_sampling(request_overrides, NO_DEFAULTS, remaining_tokens=10)
    except InvalidRequest as refused:
        refusal = refused
    if refusal is not None:
        assert refusal.param in SamplingParams.__struct_fields__
        return
    assert 0 <= params.temperature <= 2
    assert 0 < params.top_p <= 1
    assert 0 <= params.min_p <= 1
    assert params.top_k >= 0
    assert params.max_tokens >= 1
    assert params.seed is None or 0 <= params.seed <= MAX_SEED
