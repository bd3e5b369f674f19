"""How much work is about to come: the recent rate of arrivals, what one of them costs, and how far both may stray."""

from __future__ import annotations

import math

import msgspec

from argosy.control.capacity import Costs
from argosy.control.scaling_history import ScalingHistory, recent
from argosy.control.spans import Span

# As few arrivals as tell the rate to within 1/sqrt(n), so that a large service follows its traffic faster.
ENOUGH_ARRIVALS = 400.0
LEAST_SECONDS = 5.0
PRESENT_SECONDS = 2.0
CLEAR = 3.0
SURGE = 2.0
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
    short = since_enough(history, window_seconds)
    if short.seconds <= 0:
        return Demand(requests_per_second=0.0, request_seconds=0.0, work=0.0, margin=0.0, backlog=0.0)
    long = recent(history, window_seconds)
    rate = long.arrivals / long.seconds
    burst = short.arrivals / short.seconds
    if burst > rate + SURGE * math.sqrt(rate / short.seconds * dispersion(history)):
        rate = burst
    each = request_seconds(history, costs)
    spread = math.sqrt(rate / short.seconds * (dispersion(history) + _WORK_VARIATION))
    now = recent(history, PRESENT_SECONDS)
    present = now.mean(now.running_seconds + now.waiting_seconds + now.held_seconds)
    excess = max(present - now.mean(now.ready_seconds) * present_at(history, costs, history.limit.limit), 0.0)
    return Demand(
        requests_per_second=rate,
        request_seconds=each,
        work=rate * each,
        margin=margins * spread * each,
        backlog=excess * each / 2 / (CLEAR * max(ttft_seconds, 0.1)),
    )


def present_at(history: ScalingHistory, costs: Costs, load: float) -> float:
    """Requests that are in a replica at once when it is so loaded: those that come, times how long they stay."""
    mix = history.mix.joined(history.sight)
    each = request_seconds(history, costs)
    if each <= 0:
        return 1.0
    stay_seconds = mix.generation_tokens / mix.completions / (costs.idle_pace * (1.0 - load))
    return max(load / each * stay_seconds, 1.0)


def since_enough(history: ScalingHistory, most_seconds: float) -> Span:
    """The shortest recent past with enough arrivals to tell a rate from."""
    found = Span(end=history.watched_seconds)
    for span in reversed(history.spans):
        if span.end <= history.watched_seconds - most_seconds:
            break
        if found.seconds >= LEAST_SECONDS and found.arrivals >= ENOUGH_ARRIVALS:
            break
        found = span.joined(found)
    return found


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
