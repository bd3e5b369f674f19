"""Exact tests against sums written out, and bounds against what they promise."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.control.conftest import buckets

from argosy.control.evidence import binomial_tail, count_above, quantile, upper_quantile, upper_share
from argosy.core.load_report import LATENCY_BOUNDS_SECONDS


def tail_by_sum(hits: int, trials: int, share: float) -> float:
    return math.fsum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(hits, trials + 1))


@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.001, 0.999))
def test_a_tail_is_the_sum_of_its_chances(hits: int, trials: int, share: float) -> None:
    assert binomial_tail(hits, trials, share) == pytest.approx(tail_by_sum(hits, trials, share), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(
    ("hits", "trials", "share", "expected"),
    [(0, 10, 0.5, 1.0), (11, 10, 0.5, 0.0), (1, 10, 0.0, 0.0), (10, 10, 1.0, 1.0), (500, 1_000_000, 0.0005, 0.5059)],
)
def test_tails_at_the_edges(hits: int, trials: int, share: float, expected: float) -> None:
    assert binomial_tail(hits, trials, share) == pytest.approx(expected, abs=1e-3)


def test_no_failure_in_n_is_the_rule_of_three() -> None:
    assert upper_share(0, 1000, 0.05) == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert upper_share(0, 0, 0.05) == upper_share(5, 5, 0.05) == 1.0


def test_an_upper_share_is_wrong_as_seldom_as_it_says() -> None:
    """4,000 draws with a true share of 5 %: the bound at 1 % doubt lies below it in about 40."""
    dice = random.Random(7)
    misses = sum(upper_share(sum(dice.random() < 0.05 for _ in range(80)), 80, 0.01) < 0.05 for _ in range(4000))
    assert misses <= 60


def test_quantiles_of_a_histogram() -> None:
    counts = tuple(a + b for a, b in zip(buckets(0.1, 90), buckets(5.0, 10), strict=True))
    assert quantile(counts, 0.9) == pytest.approx(0.1)
    assert quantile(counts, 0.95) == pytest.approx(4.5)
    assert quantile((0,) * (len(LATENCY_BOUNDS_SECONDS) + 1), 0.5) is None
    assert quantile(buckets(1000.0, 5), 0.5) == LATENCY_BOUNDS_SECONDS[-1]


def test_too_few_answers_bound_no_quantile() -> None:
    assert upper_quantile(buckets(0.1, 43), 0.9, 0.01) is None
    assert upper_quantile(buckets(0.1, 44), 0.9, 0.01) == pytest.approx(0.1, abs=0.01)


@given(st.lists(st.floats(0.001, 100), min_size=50, max_size=200), st.floats(0.001, 130))
def test_what_is_counted_above_was_above(values: list[float], limit: float) -> None:
    counts = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
    for value in values:
        counts[next((i for i, bound in enumerate(LATENCY_BOUNDS_SECONDS) if value <= bound), -1)] += 1
    bucket_above = min((bound for bound in LATENCY_BOUNDS_SECONDS if bound >= limit), default=math.inf)
    bucket_below = max((bound for bound in LATENCY_BOUNDS_SECONDS if bound <= limit), default=0.0)
    surely, maybe = sum(v > bucket_above for v in values), sum(v >= bucket_below for v in values)
    assert (surely if limit < LATENCY_BOUNDS_SECONDS[-1] else 0) <= count_above(counts, limit) <= maybe
