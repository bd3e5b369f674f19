from __future__ import annotations

import itertools
import random

import pytest

from argosy.evals.arrivals import arrival_times, gap_variation, mean_rate


@pytest.mark.parametrize(("burstiness", "variation"), [(1.0, 1.0), (0.25, 2.0), (4.0, 0.5)])
def test_rate_and_burstiness_are_as_asked(burstiness: float, variation: float) -> None:
    times = list(itertools.islice(arrival_times(5.0, burstiness, random.Random(1)), 40_000))
    assert mean_rate(times) == pytest.approx(5.0, rel=0.03)
    assert gap_variation(times) == pytest.approx(variation, rel=0.05)


def test_one_seed_gives_one_schedule() -> None:
    first, second, other = (
        list(itertools.islice(arrival_times(2.0, 1.0, random.Random(seed)), 5)) for seed in (3, 3, 4)
    )
    assert first == second != other


def test_rate_and_variation_of_nearly_nothing() -> None:
    assert (mean_rate([]), mean_rate([1.0]), gap_variation([]), gap_variation([2.0, 2.0])) == (0, 0, 0, 0)
