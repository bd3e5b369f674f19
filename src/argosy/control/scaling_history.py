"""What a scaling decision remembers of the ones before it: an immutable value, made anew with each decision.

Time is counted while somebody watched. A laptop that slept for an hour, a control plane that stood still, or a clock
that was set back add at most `MAX_STEP_SECONDS`: what nobody saw is neither idleness nor evidence (F-11).

Samples are summed into spans of about a second, so a window of a minute has at most sixty, however often a decision
is made. Of past wishes only those are kept that can still become the highest or the lowest of a window.
"""

from __future__ import annotations

import math

import msgspec

from argosy.control.capacity import SIGHT_SECONDS, CapacityEstimate, costs_of, learned, strain
from argosy.control.load_limit import Answers, LoadLimit, adjusted
from argosy.control.spans import Span, span_of, total
from argosy.core.scaling import ScalingSample

MAX_STEP_SECONDS = 30.0
SPAN_SECONDS = 1.0
_MIX_REQUESTS = 1000.0
_START_MEMORY = 0.9


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas a decision would have liked, before stabilisation. at: watched seconds."""

    at: float
    replicas: int


class ScalingHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the next decision knows of the past. The empty one is where a service begins.

    clock_seconds: `now` of the last decision. watched_seconds: the time decisions looked at, gaps left out.
    replicas: what was decided last; None = nothing yet. spans: the recent past, oldest first.
    falling, rising: past wishes, of which each is lower (higher) than all before it.
    active_at: when the service last had anything to do. panic_at: when load last was far above what is ready;
    None = calm. panic_replicas: the most wished for since panic began.
    ready_replicas: at the last sample. starting_seconds, starts: replica-seconds spent starting, and replicas that
    became ready in them; faded.
    sight: what was seen since the capacity was last learned from. mix: what answers cost of late, faded.
    """

    clock_seconds: float | None = None
    watched_seconds: float = 0.0
    replicas: int | None = None
    spans: tuple[Span, ...] = ()
    falling: tuple[Wish, ...] = ()
    rising: tuple[Wish, ...] = ()
    active_at: float = 0.0
    panic_at: float | None = None
    panic_replicas: int = 0
    ready_replicas: int = 0
    starting_seconds: float = 0.0
    starts: float = 0.0
    sight: Span = Span(end=0.0)
    mix: Span = Span(end=0.0)
    capacity: CapacityEstimate = CapacityEstimate()
    limit: LoadLimit = LoadLimit()


def with_sample(history: ScalingHistory, sample: ScalingSample, now: float, keep_seconds: float) -> ScalingHistory:
    """The history one sample later. A stale sample moves time on but counts for nothing (F-13)."""
    passed = 0.0 if history.clock_seconds is None else min(max(now - history.clock_seconds, 0.0), MAX_STEP_SECONDS)
    watched = history.watched_seconds + passed
    is_active = sample.is_stale or sample.arrivals > 0 or requests_present(sample) > 0
    ready = sample.ready_replicas
    starts = max(ready - history.ready_replicas, 0) if history.clock_seconds is not None else 0
    keep = _START_MEMORY**starts
    spans = history.spans
    if not sample.is_stale:
        spans = _appended(spans, span_of(sample, watched), watched - keep_seconds)
    return msgspec.structs.replace(
        history,
        clock_seconds=now,
        watched_seconds=watched,
        spans=spans,
        ready_replicas=ready,
        starting_seconds=keep * history.starting_seconds + sample.starting_replicas * passed,
        starts=keep * history.starts + starts,
        active_at=watched if is_active else history.active_at,
    )


def with_wish(history: ScalingHistory, replicas: int, *, up_seconds: float, down_seconds: float) -> ScalingHistory:
    """The history with one more wish, those outside their windows forgotten."""
    wish = Wish(at=history.watched_seconds, replicas=replicas)
    falling = [old for old in history.falling if old.at > wish.at - down_seconds and old.replicas > replicas]
    rising = [old for old in history.rising if old.at > wish.at - up_seconds and old.replicas < replicas]
    return msgspec.structs.replace(history, falling=(*falling, wish), rising=(*rising, wish))


def with_learning(history: ScalingHistory, sample: ScalingSample, target: float) -> ScalingHistory:
    """The history wiser by a sample: every few seconds the capacity and the limit of the load are learned anew."""
    if sample.is_stale:
        return msgspec.structs.replace(history, sight=Span(end=history.watched_seconds))
    sight = history.sight.joined(span_of(sample, history.watched_seconds))
    if sight.seconds < SIGHT_SECONDS:
        return msgspec.structs.replace(history, sight=sight)
    limit = history.limit
    costs = costs_of(history.capacity)
    if costs is not None and sight.ready_seconds > 0:
        load = costs.work_seconds(sight.prompt_tokens, sight.generation_tokens) / sight.ready_seconds
        answers = Answers(
            seconds=sight.seconds,
            load=load,
            strain=strain(sight, costs),
            completions=sight.completions,
            slo_good=sight.slo_good,
        )
        limit = adjusted(limit, answers, target)
    return msgspec.structs.replace(
        history,
        sight=Span(end=history.watched_seconds),
        mix=history.mix.faded(math.exp(-sight.completions / _MIX_REQUESTS)).joined(sight),
        capacity=learned(history.capacity, sight),
        limit=limit,
    )


def recent(history: ScalingHistory, seconds: float) -> Span:
    """The last `seconds` of watched time, as far as they are known, as one span."""
    since = history.watched_seconds - seconds
    return total([span for span in history.spans if span.end > since], history.watched_seconds)


def start_seconds(history: ScalingHistory) -> float:
    """How long a replica takes from the decision until it is ready, as seen so far; 0 = nothing was seen."""
    return history.starting_seconds / history.starts if history.starts > 0 else 0.0


def requests_present(sample: ScalingSample) -> int:
    """Requests that run, wait or are held now."""
    return sample.num_requests_running + sample.num_requests_waiting + sample.num_requests_held


def is_nonsense(sample: ScalingSample) -> bool:
    """Whether a number is negative, not finite, or an interval has no length (F-13)."""
    numbers = [getattr(sample, name) for name in sample.__struct_fields__ if name not in ("now", "is_stale")]
    return sample.interval_seconds <= 0 or any(number < 0 or not math.isfinite(number) for number in numbers)


def _appended(spans: tuple[Span, ...], span: Span, since: float) -> tuple[Span, ...]:
    kept = [old for old in spans if old.end > since]
    if kept and kept[-1].seconds + span.seconds <= SPAN_SECONDS:
        kept[-1] = kept[-1].joined(span)
    else:
        kept.append(span)
    return tuple(kept)
