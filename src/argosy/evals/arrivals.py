"""When requests are sent: pure functions from a seed to times."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import fmean, pstdev


def arrival_times(rate: float, burstiness: float, rng: random.Random) -> Iterator[float]:
    """Endless intended send times of an open-loop client, beginning at the first gap after 0.

    Gaps are gamma distributed with shape `burstiness`: 1 is a Poisson process, below 1 comes in bursts (CV of the
    gaps = burstiness ** -0.5), above 1 is more even.
    Units: rate in requests per second; times in seconds. Source: `vllm bench serve --burstiness`.
    """
    now = 0.0
    while True:
        now += rng.gammavariate(burstiness, 1.0 / (rate * burstiness))
        yield now


def gap_variation(times: Sequence[float]) -> float:
    """Coefficient of variation of the gaps between sorted times: 1 for Poisson. Units: times in seconds."""
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = fmean(gaps) if gaps else 0.0
    return pstdev(gaps) / mean if mean else 0.0


def mean_rate(times: Sequence[float]) -> float:
    """Requests per second over the span of sorted times."""
    span = times[-1] - times[0] if len(times) > 1 else 0.0
    return len(times) / span if span else 0.0
