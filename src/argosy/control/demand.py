"""How much work is about to come: the recent rate of arrivals, what one of them costs, and how far both may stray."""

from __future__ import annotations

import math

import msgspec

from argosy.control.capacity import Costs
from argosy.control.scaling_history import ScalingHistory, recent, start_seconds
from argosy.control.spans import Span, total

# As few arrivals as tell the rate to within 1/sqrt(n): a large service sees a surge sooner.
_ENOUGH_ARRIVALS = 400.0
_LEAST_SECONDS = 5.0
_SURGE = 2.5  # standard deviations above the rate of the window
_CERTAIN = 1.0
_PRESENT_SECONDS = 2.0
# Who waits has missed already: what is started for them serves those who come behind, for a while.
_CLEAR_SECONDS = 12.0
_MOST_DISPERSION = 20.0


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be carried. requests_per_second: now. request_seconds: replica-seconds that one takes.

    work, growth, backlog: replica-seconds per second: of what comes now, of what comes more by the time that a replica
    asked for now is ready, and of those who wait already.
    """

    requests_per_second: float = 0.0
    request_seconds: float = 0.0
    work: float = 0.0
    growth: float = 0.0
    backlog: float = 0.0


def forecast(history: ScalingHistory, costs: Costs, window_seconds: float) -> Demand:
    """The work that a replica asked for now would meet."""
    long, short = recent(history, window_seconds), since_enough(history, window_seconds)
    each = request_seconds(history, costs)
    if short.seconds <= 0 or each <= 0:
        return Demand()
    rate, burst = long.arrivals / long.seconds, short.arrivals / short.seconds
    spread = math.sqrt(rate * dispersion(history))
    if burst > rate + _SURGE * spread / math.sqrt(short.seconds):
        rate = burst
    now = recent(history, _PRESENT_SECONDS)
    present = now.mean(now.running_seconds + now.waiting_seconds + now.held_seconds)
    excess = max(present - now.mean(now.ready_seconds) * present_at(history, costs, history.limit.limit), 0.0)
    return Demand(
        requests_per_second=rate,
        request_seconds=each,
        work=rate * each,
        growth=growth_per_second(history, window_seconds, spread) * start_seconds(history) * each,
        backlog=excess * each / 2 / _CLEAR_SECONDS,
    )


def growth_per_second(history: ScalingHistory, window_seconds: float, spread: float) -> float:
    """How much the rate rises each second, beyond what chance explains. spread: of the count of one second."""
    whole, late = recent(history, window_seconds), recent(history, window_seconds / 2)
    early_seconds = whole.seconds - late.seconds
    if late.seconds <= 0 or early_seconds <= 0:
        return 0.0
    rise = late.arrivals / late.seconds - (whole.arrivals - late.arrivals) / early_seconds
    chance = spread * math.sqrt(1.0 / late.seconds + 1.0 / early_seconds)
    return max(rise - _CERTAIN * chance, 0.0) / (whole.seconds / 2)


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
    found: list[Span] = []
    seconds = arrivals = 0.0
    for span in reversed(history.spans):
        is_enough = seconds >= _LEAST_SECONDS and arrivals >= _ENOUGH_ARRIVALS
        if is_enough or span.end <= history.watched_seconds - most_seconds:
            break
        found.append(span)
        seconds += span.seconds
        arrivals += span.arrivals
    return total(found, history.watched_seconds)


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
