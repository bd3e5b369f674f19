"""Verdicts on a new revision: a table, and how often chance alone would send a good one back."""

from __future__ import annotations

import random

import pytest
from tests.control.conftest import buckets

from argosy.control.promotion import Comparison, VerdictKind, gross_failure, verdict
from argosy.control.traffic import TrafficWindow
from argosy.core.inference_service import PromotionPolicy
from argosy.core.load_report import LATENCY_BOUNDS_SECONDS

POLICY = PromotionPolicy()


def window(answers: int, errors: int = 0, *, ttft: float = 0.1, tpot: float = 0.02) -> TrafficWindow:
    good = answers - errors
    return TrafficWindow(
        requests=answers,
        errors=errors,
        completions=answers,
        ttft_counts=buckets(ttft, good),
        tpot_counts=buckets(tpot, good),
    )


def compared(new: TrafficWindow, old: TrafficWindow) -> Comparison:
    return Comparison(target="v2", stable="v1", new=new, old=old)


@pytest.mark.parametrize(
    ("new", "old", "kind", "words"),
    [
        (window(60), window(500), VerdictKind.ADVANCE, "0.00% of 60 requests to v2 failed"),
        (window(49), window(500), VerdictKind.HOLD, "answered 49 of the 50 requests a verdict needs"),
        (window(60), window(19), VerdictKind.HOLD, "v1 has answered 19 requests; a comparison needs 20"),
        (window(60, 1), window(500), VerdictKind.HOLD, "may be chance"),  # 1.7 % is above 1 %, one in 60 is no proof
        (window(100, 1), window(500), VerdictKind.ADVANCE, "1.00% of 100"),
        (window(60, 6), window(500), VerdictKind.ABORT, "10.00% of 60 requests to v2 failed, of 500 to v1 0.00%"),
        (window(8, 8), window(500), VerdictKind.ABORT, "100.00% of 8"),
        (window(60, 6), window(500, 50), VerdictKind.ADVANCE, "10.00% of 500"[:5]),  # no worse than the old one
        (window(60, ttft=0.19), window(500), VerdictKind.ABORT, "p90 time to first token is 0.19"),
        (window(60, tpot=0.05), window(500), VerdictKind.ABORT, "p90 time per token"),
        (window(60, ttft=0.12), window(500), VerdictKind.ADVANCE, "p90 time to first token"),
    ],
)
def test_the_verdict_at_the_end_of_a_step(
    new: TrafficWindow, old: TrafficWindow, kind: VerdictKind, words: str
) -> None:
    found = verdict(POLICY, compared(new, old))
    assert found.kind is kind, found.message
    assert words in found.message


@pytest.mark.parametrize(
    ("new", "old", "is_gross"),
    [
        (window(4, 4), window(500), False),  # too few to know
        (window(5, 5), window(500), True),
        (window(10, 4), window(500), True),
        (window(10, 1), window(500), False),
        (window(10, 9), window(0), False),  # nothing to compare with: nine of ten might be one in two
        (window(20, 19), window(0), True),
        (window(60, ttft=0.19), window(500), False),  # not twice the ratio
        (window(60, ttft=0.9), window(500), True),
    ],
)
def test_gross_failure_at_any_moment(new: TrafficWindow, old: TrafficWindow, is_gross: bool) -> None:
    assert (gross_failure(POLICY, compared(new, old)) is not None) is is_gross


def drawn(dice: random.Random, answers: int, error_rate: float, scale: float = 1.0) -> TrafficWindow:
    errors = sum(dice.random() < error_rate for _ in range(answers))
    counts = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
    for _ in range(answers - errors):
        seconds = scale * dice.lognormvariate(-2.0, 0.5)
        counts[next(i for i, bound in enumerate(LATENCY_BOUNDS_SECONDS) if seconds <= bound)] += 1
    return TrafficWindow(requests=answers, errors=errors, completions=answers, ttft_counts=tuple(counts))


def test_an_equal_revision_is_sent_back_less_than_once_in_a_hundred_steps() -> None:
    dice = random.Random(11)
    sent_back = sum(
        verdict(POLICY, compared(drawn(dice, 200, 0.02), drawn(dice, 800, 0.02))).kind is VerdictKind.ABORT
        for _ in range(400)
    )
    assert sent_back <= 4


def test_a_revision_twice_as_slow_is_sent_back_nearly_always() -> None:
    dice = random.Random(13)
    sent_back = sum(
        verdict(POLICY, compared(drawn(dice, 200, 0.0, 2.0), drawn(dice, 800, 0.0))).kind is VerdictKind.ABORT
        for _ in range(100)
    )
    assert sent_back >= 95
