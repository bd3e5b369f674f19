"""How much work is about to come: the recent rate of arrivals, what one of them costs, and how far both may stray."""

from __future__ import annotations

import math

import msgspec

from argosy.control.capacity import Costs
from argosy.control.scaling_history import ScalingHistory, recent

FORECAST_SECONDS = 20.0
_WORK_VARIATION = 1.0  # squared coefficient of variation of a request's cost: 1 as for chats
_MOST_DISPERSION = 20.0


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be carried. requests_per_second: expected. request_seconds: replica-seconds of one.

    work, margin: replica-seconds per second, expected and on top. backlog: likewise, to clear who waits within the SLO.
    """

    requests_per_second: float
    request_seconds: float
    work: float
    margin: float
    backlog: float


def forecast(
    history: ScalingHistory, costs: Costs, window_seconds: float, ttft_seconds: float, margins: float
) -> Demand:
    """The work of the next half minute. margins: how many standard deviations to add."""
    long = recent(history, window_seconds)
    short = recent(history, FORECAST_SECONDS)
    if short.seconds <= 0:
        return Demand(requests_per_second=0.0, request_seconds=0.0, work=0.0, margin=0.0, backlog=0.0)
    rate = max(short.arrivals / short.seconds, long.arrivals / long.seconds)
    each = request_seconds(history, costs)
    spread = math.sqrt(rate / FORECAST_SECONDS * (dispersion(history) + _WORK_VARIATION))
    now = recent(history, 2.0)
    waiting = now.mean(now.waiting_seconds + now.held_seconds)
    usual = now.mean(now.ready_seconds)
    return Demand(
        requests_per_second=rate,
        request_seconds=each,
        work=rate * each,
        margin=margins * spread * each,
        backlog=max(waiting - usual, 0.0) * each / max(ttft_seconds, 0.1) / 2,
    )


def request_seconds(history: ScalingHistory, costs: Costs) -> float:
    """Replica-seconds of a request, as answers of late were."""
    mix = history.mix.joined(history.sight)
    if mix.completions <= 0:
        return 0.0
    return costs.work_seconds(mix.prompt_tokens, mix.generation_tokens) / mix.completions


def dispersion(history: ScalingHistory) -> float:
    """Variance of the arrivals per second over their mean: 1 for Poisson, more when they come in bursts."""
    counts = [span.arrivals / span.seconds for span in history.spans if span.seconds > 0]
    mean = sum(counts) / len(counts) if counts else 0.0
    if mean <= 0 or len(counts) < 2:
        return 1.0
    variance = sum((count - mean) ** 2 for count in counts) / (len(counts) - 1)
    return min(max(variance / mean, 1.0), _MOST_DISPERSION)
