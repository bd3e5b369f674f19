"""What was seen of a service in a short while: counts, and gauges summed over time, so that spans can be joined."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import astuple

from argosy.core.scaling import ScalingSample


class Span(msgspec.Struct, frozen=True):
    """A short while: what was counted in it, and the gauges summed over its time.

    end: watched seconds. seconds: how long. …_seconds of a gauge: its value times the time it had it.
    """

    end: float
    seconds: float = 0.0
    arrivals: float = 0.0
    completions: float = 0.0
    slo_good: float = 0.0
    prompt_tokens: float = 0.0
    generation_tokens: float = 0.0
    started: float = 0.0
    queue_seconds: float = 0.0
    ready_seconds: float = 0.0
    running_seconds: float = 0.0
    waiting_seconds: float = 0.0
    held_seconds: float = 0.0
    kv_usage_seconds: float = 0.0

    def joined(self, later: Span) -> Span:
        """This span and the one right after it as one."""
        return total((self, later), later.end)

    def faded(self, ratio: float) -> Span:
        """This span counted less. Its counts are no longer whole."""
        return Span(self.end, *[value * ratio for value in astuple(self)[1:]])

    def mean(self, summed: float) -> float:
        """The mean of a gauge over the span, from its sum over time."""
        return summed / self.seconds if self.seconds > 0 else 0.0


def total(spans: Sequence[Span], end: float) -> Span:
    """All of them as one that ends at `end`."""
    if not spans:
        return Span(end)
    return Span(end, *map(sum, zip(*(astuple(span)[1:] for span in spans), strict=True)))


def span_of(sample: ScalingSample, end: float) -> Span:
    """A sample as the span it stands for, its gauges taken to have held throughout."""
    seconds = sample.interval_seconds
    return Span(
        end=end,
        seconds=seconds,
        arrivals=sample.arrivals,
        completions=sample.completions,
        slo_good=sample.slo_good,
        prompt_tokens=sample.prompt_tokens,
        generation_tokens=sample.generation_tokens,
        started=sample.started,
        queue_seconds=sample.queue_seconds,
        ready_seconds=sample.ready_replicas * seconds,
        running_seconds=sample.num_requests_running * seconds,
        waiting_seconds=sample.num_requests_waiting * seconds,
        held_seconds=sample.num_requests_held * seconds,
        kv_usage_seconds=sample.kv_cache_usage_ratio * seconds,
    )
