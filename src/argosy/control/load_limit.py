"""How far a replica may be loaded, learned from the SLO: good answers raise the limit, missed ones lower it.

The step is such that the limit rests where exactly the allowed share of answers misses (as in an online quantile):
an answer within the SLO moves it up by a little, a missed one down by as much as the SLO allows good ones per miss.

Three things keep it honest. It rises only while the load is near it: an idle service proves nothing. It does not rise
to where many are known to have missed, or it would try that again every few minutes. And misses that no replica could
have helped (a prompt that takes longer than the SLO by itself) do not count: they are told by the share that misses
even where the load is low.

Source: Gibbs and Candès 2021, Adaptive Conformal Inference (the step); the rest is measured in docs/autoscaling.md.
"""

from __future__ import annotations

import math

import msgspec

INITIAL_LIMIT = 0.6
LEAST_LIMIT, MOST_LIMIT = 0.25, 0.85
_GAIN = 0.1  # how far the limit rises in one _HORIZON_SECONDS without a miss
_HORIZON_SECONDS = 300.0
_LARGEST_STEP = 0.03
# Misses come in clusters, so the mean over an hour strays: aim at fewer than are allowed.
_STRICTNESS = 0.6
_NEAR_RATIO = 0.75
_BINS = 20
_IDLE_BINS = 8  # below a load of 0.4 replicas are not what is missing
_BIN_MEMORY_REQUESTS = 3000.0
_BIN_MEMORY_SECONDS = 1800.0
_EVIDENCE_REQUESTS = 200.0
_BEARABLE = 8.0  # times the allowed share: what is known to be worse is not tried again


class LoadLimit(msgspec.Struct, frozen=True, kw_only=True):
    """limit: the load (0 to 1, see `capacity`) that a replica should not exceed.

    completions, misses: by load in twentieths, faded. rate, missed_rate: answers, and missed ones, per second, faded
    over the horizon.
    """

    limit: float = INITIAL_LIMIT
    completions: tuple[float, ...] = (0.0,) * _BINS
    misses: tuple[float, ...] = (0.0,) * _BINS
    rate: float = 0.0
    missed_rate: float = 0.0

    @property
    def attained(self) -> float | None:
        """Share of good answers of late."""
        return 1.0 - self.missed_rate / self.rate if self.rate > 0 else None


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What came of some seconds at a load. strain: the load as the pace of answers tells it, backlogs included."""

    seconds: float
    load: float
    strain: float
    completions: float
    slo_good: float


def adjusted(limit: LoadLimit, seen: Answers, target: float) -> LoadLimit:
    """The limit after some more answers. target: the attainment asked for, 0 to 1."""
    if seen.completions <= 0 or seen.seconds <= 0:
        return limit
    missed = seen.completions - min(seen.slo_good, seen.completions)
    keep = math.exp(-seen.seconds / _HORIZON_SECONDS)
    rate = keep * limit.rate + (1 - keep) * seen.completions / seen.seconds
    completions, misses = _binned(limit, seen, missed)
    allowed = _STRICTNESS * max(1.0 - target, 1e-4)
    excess = missed - _hopeless_ratio(completions, misses) * seen.completions
    usual = max(rate * _HORIZON_SECONDS, seen.completions)
    step = _GAIN * (allowed * seen.completions - excess) / (allowed * usual)
    if step > 0 and seen.load < _NEAR_RATIO * limit.limit:
        step = 0.0
    moved = limit.limit + min(max(step, -_LARGEST_STEP), _LARGEST_STEP)
    moved = min(moved, _ceiling(completions, misses, _BEARABLE * allowed))
    return LoadLimit(
        limit=min(max(moved, LEAST_LIMIT), MOST_LIMIT),
        completions=completions,
        misses=misses,
        rate=rate,
        missed_rate=keep * limit.missed_rate + (1 - keep) * missed / seen.seconds,
    )


def _binned(limit: LoadLimit, seen: Answers, missed: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The answers put to their load. What a high load did is forgotten in time, so that it is tried again."""
    keep = [1.0] * _IDLE_BINS + [math.exp(-seen.seconds / _BIN_MEMORY_SECONDS)] * (_BINS - _IDLE_BINS)
    here = min(max(int(max(seen.load, seen.strain) * _BINS), 0), _BINS - 1)
    keep[here] *= math.exp(-seen.completions / _BIN_MEMORY_REQUESTS)
    completions = [ratio * old for ratio, old in zip(keep, limit.completions, strict=True)]
    misses = [ratio * old for ratio, old in zip(keep, limit.misses, strict=True)]
    completions[here] += seen.completions
    misses[here] += missed
    return tuple(completions), tuple(misses)


def _hopeless_ratio(completions: tuple[float, ...], misses: tuple[float, ...]) -> float:
    """The share that misses where the load is low: more replicas do not help those. 0 while too little is known."""
    known = sum(completions[:_IDLE_BINS])
    return sum(misses[:_IDLE_BINS]) / known if known >= _EVIDENCE_REQUESTS else 0.0


def _ceiling(completions: tuple[float, ...], misses: tuple[float, ...], bearable: float) -> float:
    """The lowest load at which more than the bearable share is known to miss, beyond the hopeless ones."""
    hopeless = _hopeless_ratio(completions, misses)
    for place in range(_IDLE_BINS, _BINS):
        if completions[place] >= _EVIDENCE_REQUESTS and misses[place] / completions[place] - hopeless > bearable:
            return place / _BINS
    return 1.0
