"""The reference sampler's rules, each by numbers worked out by hand on a vocabulary of five."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.errors import EngineError
from argosy.core.sampling import SamplingParams
from argosy.engines.reference_sampling import Sampler, draw, penalised, shaped_probabilities, softmax, token_logprob

LOGITS = np.log(np.array([0.4, 0.3, 0.15, 0.1, 0.05]))


def params(**changes: object) -> SamplingParams:
    return SamplingParams(max_tokens=100, **changes)  # type: ignore[arg-type]


def chosen(num_tokens: int, sampling: SamplingParams, prompt: tuple[int, ...] = (0,)) -> list[int]:
    sampler = Sampler(sampling, prompt)
    return [sampler.choose(LOGITS)[0] for _ in range(num_tokens)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0, 0]),
        ({"top_k": 99}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        ({"top_p": 0.6}, [4 / 7, 3 / 7, 0, 0, 0]),  # 0.4 is not enough, so the token that crosses 0.6 stays
        ({"top_p": 0.01}, [1, 0, 0, 0, 0]),  # never empty
        ({"min_p": 0.3}, [0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85, 0, 0]),  # 0.3 x 0.4 = 0.12 is the least
        ({"top_k": 3, "top_p": 0.8}, [4 / 7, 3 / 7, 0, 0, 0]),  # of 0.85 left, the first two hold 0.82
        ({"temperature": 0.5}, [0.16 / 0.285, 0.09 / 0.285, 0.0225 / 0.285, 0.01 / 0.285, 0.0025 / 0.285]),
    ],
)
def test_what_is_drawn_from(changes: dict[str, object], expected: list[float]) -> None:
    assert shaped_probabilities(LOGITS, params(**changes)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"presence_penalty": 0.5}, [2.0, 0.5, -1.5]),
        ({"frequency_penalty": 0.5}, [2.0, 0.5, -2.5]),
        ({"repetition_penalty": 2.0}, [1.0, 1.0, -2.0]),
        ({"presence_penalty": -0.5}, [2.0, 1.5, -0.5]),
    ],
)
def test_penalties(changes: dict[str, object], expected: list[float]) -> None:
    """The prompt is token 0; token 1 came out once and token 2 three times."""
    counts = Counter({2: 3, 1: 1}) if "repetition_penalty" not in changes else Counter({2: 3})
    before = np.array([2.0, 1.0, -1.0])
    assert penalised(before, params(**changes), np.array([0]), counts) == pytest.approx(expected)


def test_greedy_takes_the_likeliest_and_penalties_move_it() -> None:
    assert chosen(3, params(temperature=0.0)) == [0, 0, 0]
    assert chosen(4, params(temperature=0.0, frequency_penalty=1.0)) == [0, 1, 2, 0]


def test_allowed_ids_and_bias() -> None:
    assert set(chosen(50, params(allowed_token_ids=(2, 4), seed=1))) == {2, 4}
    assert chosen(1, params(temperature=0.0, logit_bias={3: 10.0})) == [3]
    assert chosen(1, params(temperature=0.0, logit_bias={0: -100.0})) == [1]


def test_a_stop_token_cannot_come_before_min_tokens() -> None:
    assert chosen(3, params(temperature=0.0, stop_token_ids=(0,), min_tokens=2)) == [1, 1, 0]


def test_rules_that_leave_nothing_are_an_error_and_not_a_nan() -> None:
    sampler = Sampler(params(allowed_token_ids=(0,), stop_token_ids=(0,), min_tokens=1), (0,))
    with pytest.raises(EngineError, match="leave no token"):
        sampler.choose(LOGITS)


def test_same_seed_same_tokens_other_seed_other_tokens() -> None:
    assert chosen(40, params(seed=7)) == chosen(40, params(seed=7))
    assert chosen(40, params(seed=7)) != chosen(40, params(seed=8))


def test_draws_follow_the_distribution() -> None:
    """2,000 draws of a token with p = 0.4: 800, and 5 standard deviations are 110."""
    assert abs(Counter(chosen(2000, params(seed=1)))[0] - 800) < 110


def test_logprobs_are_of_the_raw_logits_whatever_the_rules_do() -> None:
    sampler = Sampler(params(temperature=0.0, logprobs=2, logit_bias={3: 10.0}), (0,))
    token_id, logprob = sampler.choose(LOGITS + 3.0)
    assert token_id == 3
    assert logprob is not None
    assert logprob.logprob == pytest.approx(np.log(0.1))
    assert [(index, pytest.approx(value)) for index, value in logprob.top] == [(0, np.log(0.4)), (1, np.log(0.3))]
    assert token_logprob(LOGITS, 1, 0).top == ()


finite = st.floats(-50, 50)


@given(st.lists(finite, min_size=2, max_size=40), st.integers(0, 50), st.floats(0.01, 1), st.floats(0, 1))
def test_what_is_drawn_from_is_always_a_distribution(
    logits: list[float], top_k: int, top_p: float, min_p: float
) -> None:
    probs = shaped_probabilities(np.array(logits), params(top_k=top_k, top_p=top_p, min_p=min_p))
    assert probs.sum() == pytest.approx(1.0)
    assert probs[softmax(np.array(logits)).argmax()] == probs.max()  # the likeliest always stays


@given(st.lists(finite, min_size=2, max_size=40), st.integers(0, 2**32))
def test_an_impossible_token_is_never_drawn(logits: list[float], seed: int) -> None:
    impossible = np.array([-np.inf, *logits, -np.inf])
    assert 1 <= draw(softmax(impossible), np.random.default_rng(seed)) <= len(logits)
