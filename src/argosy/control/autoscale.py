"""How many replicas should run: one pure function from a policy, a sample and what was before, `now` included.

A decision has five steps, each of which can only say why it changed the number:

1. wish: what the metric asks for. A ratio of what is seen to the target, as Kubernetes' HPA; for `slo` the replicas
   whose measured capacity carries the expected work.
2. panic: when the last seconds need twice what is ready, the short window rules and nothing falls (Knative's KPA).
3. doubt: a stale sample may raise the number, never lower it (F-13).
4. stabilisation: the highest wish of the last minutes rules a fall, the lowest of its own window a rise.
5. bounds: the policy's, at most so many times what is ready at once; never zero while anybody asks, and one at once
   when a request is held at the gateway (F-14).

Source: Kubernetes HPA v2 (KEP-853 stabilisation); Knative KPA (pkg/autoscaler/scaling/autoscaler.go).
"""

from __future__ import annotations

import math

import msgspec

from argosy.control.capacity import costs_of
from argosy.control.demand import Demand, forecast
from argosy.control.scaling_history import (
    ScalingHistory,
    is_nonsense,
    recent,
    requests_present,
    with_learning,
    with_sample,
    with_wish,
)
from argosy.control.spans import Span
from argosy.core.scaling import DEFAULT_TARGETS, ScalingDecision, ScalingMetric, ScalingPolicy, ScalingSample


class ScalingOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, and the history to hand to the next one."""

    decision: ScalingDecision
    history: ScalingHistory


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A number of replicas on its way to a decision."""

    replicas: int
    reason: str
    message: str


def desired_replicas(
    policy: ScalingPolicy, sample: ScalingSample, history: ScalingHistory, now: float
) -> ScalingOutcome:
    """How many replicas shall run, why, and what the next decision must know. Pure.

    Begin with `ScalingHistory()`; without a past the number that runs is held, unless a request is held at the gateway.
    Units: now in seconds of a monotonic clock; it may jump.
    Source: see the head of this file.
    """
    if is_nonsense(sample) and not sample.is_stale:
        sample = msgspec.structs.replace(sample, is_stale=True)
    history = with_sample(history, sample, now, max(policy.window_seconds, policy.panic_window_seconds))
    current = sample.ready_replicas + sample.starting_replicas if history.replicas is None else history.replicas
    if policy.metric is ScalingMetric.SLO:
        history = with_learning(history, sample, _target(policy))
        wish = _slo_wish(policy, sample, history, current)
    else:
        wish = _ratio_wish(policy, sample, recent(history, policy.window_seconds), current)
        wish, history = _with_panic(policy, sample, wish, history)
    wish = _with_doubt(sample, wish, current)
    wish, history = _stabilised(policy, wish, current, history)
    decision = _bounded(policy, sample, wish, history)
    return ScalingOutcome(decision=decision, history=msgspec.structs.replace(history, replicas=decision.replicas))


def _ratio_wish(policy: ScalingPolicy, sample: ScalingSample, seen: Span, current: int) -> _Wish:
    """What the metric asks for, seen over a window."""
    target = _target(policy)
    ready = max(sample.ready_replicas, 1)
    match policy.metric:
        case ScalingMetric.QUEUE_LENGTH:
            total = seen.mean(seen.waiting_seconds + seen.held_seconds)
            told = f"{total:.1f} requests wait, target {target:g} per replica"
            is_queue = True
        case ScalingMetric.QUEUE_TIME:
            wait = seen.queue_seconds / seen.started if seen.started else 0.0
            total = wait * ready
            told = f"requests wait {wait:.2f} s, target {target:g} s"
            is_queue = True
        case ScalingMetric.KV_CACHE_USAGE:
            usage = seen.mean(seen.kv_usage_seconds)
            total = usage * ready
            told = f"the KV cache is {usage:.0%} full, target {target:.0%}"
            is_queue = False
        case _:
            target = target if policy.metric is ScalingMetric.CONCURRENCY else _seats(sample)
            total = seen.mean(seen.running_seconds + seen.waiting_seconds + seen.held_seconds)
            told = f"{total:.1f} requests are in flight, target {target:g} per replica"
            is_queue = False
    ratio = total / (target * max(current, 1))
    if current > 0 and abs(ratio - 1.0) <= policy.tolerance + 1e-9:
        message = f"{told}: within {policy.tolerance:.0%} of what {_count(current)} should have"
        return _Wish(replicas=current, reason="WithinTolerance", message=message)
    wished = math.ceil(total / target - 1e-9)
    if is_queue and wished < current:
        # An empty queue says that there is enough, not how much: one step at a time, and a seat for all who run.
        seats = math.ceil(seen.mean(seen.running_seconds) / sample.max_num_seqs) if sample.max_num_seqs else 0
        wished = max(current - 1, seats)
    return _Wish(replicas=wished, reason="MetricAsks", message=f"{told}: {_count(wished)} needed")


def _slo_wish(policy: ScalingPolicy, sample: ScalingSample, history: ScalingHistory, current: int) -> _Wish:
    """Replicas whose measured capacity carries the expected work."""
    costs = costs_of(history.capacity)
    if costs is None or history.mix.completions <= 0:
        seen = recent(history, policy.window_seconds)
        wish = _ratio_wish(policy, sample, seen, current)
        if wish.replicas >= current or not seen.arrivals:
            return wish
        message = f"{wish.message}, but what a replica can carry is still being learned"
        return _Wish(replicas=current, reason="Learning", message=message)
    demand = forecast(history, costs, policy.window_seconds)
    limit = history.limit.limit
    needed = (demand.work + demand.growth + demand.backlog) / limit
    room = 1.0 + policy.tolerance
    attained = history.limit.attained
    # Within the tolerance nothing changes, unless the SLO is being missed.
    is_burning = attained is not None and attained < _target(policy)
    is_more = needed > current * (1.0 if is_burning else room)
    replicas = math.ceil(needed - 1e-9) if is_more else min(math.ceil(needed * room - 1e-9), current)
    message = _slo_sentence(demand, needed, history)
    return _Wish(replicas=replicas, reason="CapacityAsks", message=message)


def _slo_sentence(demand: Demand, needed: float, history: ScalingHistory) -> str:
    """The reckoning in words."""
    told = f"{demand.requests_per_second:.1f} requests/s take {demand.request_seconds * 1000:.0f} ms of a replica each"
    extra = [
        f"{work / max(demand.work, 1e-9):.0%} more for {what}"
        for work, what in ((demand.growth, "their growth"), (demand.backlog, "who waits already"))
        if work > 0.01 * demand.work
    ]
    attained = history.limit.attained
    seen = f" ({attained:.1%} of late were within the SLO)" if attained is not None else ""
    needs = f"at a load of at most {history.limit.limit:.0%}{seen} that needs {needed:.2f} replicas"
    return "; ".join([", ".join([told, *extra]), needs])


def _target(policy: ScalingPolicy) -> float:
    return policy.target if policy.target is not None else DEFAULT_TARGETS[policy.metric]


def _seats(sample: ScalingSample) -> float:
    """Requests in flight that a replica may have while its capacity is unknown: half its seats."""
    return max(sample.max_num_seqs / 2, 1.0) if sample.max_num_seqs else DEFAULT_TARGETS[ScalingMetric.CONCURRENCY]


def _with_panic(
    policy: ScalingPolicy, sample: ScalingSample, wish: _Wish, history: ScalingHistory
) -> tuple[_Wish, ScalingHistory]:
    """In panic the short window may raise the wish and nothing lowers it, until a whole long window was calm."""
    ready = max(sample.ready_replicas, 1)
    burst = _ratio_wish(policy, sample, recent(history, policy.panic_window_seconds), ready)
    now = history.watched_seconds
    panic_at, most = history.panic_at, history.panic_replicas
    if burst.replicas >= policy.panic_threshold * ready:
        panic_at = now
    elif panic_at is not None and now - panic_at > policy.window_seconds:
        panic_at, most = None, 0
    if panic_at is None:
        return wish, msgspec.structs.replace(history, panic_at=None, panic_replicas=0)
    most = max(most, burst.replicas, wish.replicas)
    if most > wish.replicas:
        span = f"in the last {policy.panic_window_seconds:g} s {burst.message}"
        told = span if burst.replicas == most else f"a burst {now - panic_at:.0f} s ago needed {_count(most)}"
        wish = _Wish(replicas=most, reason="Panic", message=told)
    return wish, msgspec.structs.replace(history, panic_at=panic_at, panic_replicas=most)


def _with_doubt(sample: ScalingSample, wish: _Wish, current: int) -> _Wish:
    """What is not known to be true may not take a replica away."""
    if not sample.is_stale or wish.replicas >= current:
        return wish
    message = f"not every source of figures answers: held at {_count(current)} until they do"
    return _Wish(replicas=current, reason="StaleSample", message=message)


def _stabilised(
    policy: ScalingPolicy, wish: _Wish, current: int, history: ScalingHistory
) -> tuple[_Wish, ScalingHistory]:
    """Down no further than the highest wish of the window, up no further than the lowest of its own."""
    is_first = history.replicas is None
    history = with_wish(
        history,
        max(wish.replicas, current) if is_first else wish.replicas,
        up_seconds=policy.scale_up_stabilization_seconds,
        down_seconds=policy.scale_down_stabilization_seconds,
    )
    highest, lowest = history.falling[0].replicas, history.rising[0].replicas
    if wish.replicas < current and highest > wish.replicas:
        held = min(current, highest)
        seconds = policy.scale_down_stabilization_seconds
        message = f"{wish.message}; {_count(held)} kept, the most that was needed in the last {seconds:g} s"
        return _Wish(replicas=held, reason="Stabilized", message=message), history
    if wish.replicas > current and lowest < wish.replicas:
        held = max(current, lowest)
        seconds = policy.scale_up_stabilization_seconds
        message = f"{wish.message}; {_count(held)} until the need has lasted {seconds:g} s"
        return _Wish(replicas=held, reason="Stabilized", message=message), history
    return wish, history


def _bounded(policy: ScalingPolicy, sample: ScalingSample, wish: _Wish, history: ScalingHistory) -> ScalingDecision:
    """The wish within the policy's bounds, the pace of growth, and the rules of zero."""
    wish = _with_zero(policy, sample, wish, history)
    pace = math.ceil(policy.max_scale_up_ratio * max(sample.ready_replicas, 1))
    before = max(sample.ready_replicas + sample.starting_replicas, history.replicas or 0)
    allowed = min(wish.replicas, max(pace, before))
    bounded = min(max(allowed, policy.min_replicas), policy.max_replicas)
    if bounded == wish.replicas:
        return ScalingDecision(replicas=bounded, reason=wish.reason, message=wish.message)
    if bounded == policy.max_replicas:
        limit = f"max_replicas is {policy.max_replicas}"
    elif bounded == policy.min_replicas and bounded > wish.replicas:
        limit = f"min_replicas is {policy.min_replicas}"
    else:
        limit = f"at most {policy.max_scale_up_ratio:g} times the ready replicas at once"
    return ScalingDecision(
        replicas=bounded, reason="Limited", message=f"{wish.message}; {_count(bounded)}: {limit}", is_limited=True
    )


def _with_zero(policy: ScalingPolicy, sample: ScalingSample, wish: _Wish, history: ScalingHistory) -> _Wish:
    """None at all only after a long silence; one at once when somebody waits at the gateway."""
    asked = max(requests_present(sample), sample.arrivals)
    running = sample.ready_replicas + sample.starting_replicas
    if asked and running == 0:
        told = f"{asked} asked while no replica runs: the first one starts"
        return _Wish(replicas=max(wish.replicas, 1), reason="WokenFromZero", message=told)
    if asked and wish.replicas < 1:
        return _Wish(replicas=1, reason="InUse", message=f"{wish.message}; the last replica stays while it is asked")
    if policy.min_replicas > 0:
        return wish
    was = running if history.replicas is None else history.replicas
    if was == 0 and wish.replicas == 0:
        return _Wish(replicas=0, reason="Idle", message="no request has come since the last replica left")
    idle = history.watched_seconds - history.active_at
    left = policy.scale_to_zero_after_seconds - idle
    if left <= 0:
        return _Wish(replicas=0, reason="ScaledToZero", message=f"idle for {idle:.0f} s: no replica is kept")
    if wish.replicas > 0:
        return wish
    message = f"idle for {idle:.0f} s: the last replica leaves in {left:.0f} s unless a request comes"
    return _Wish(replicas=1, reason="Idle", message=message)


def _count(replicas: int) -> str:
    return "1 replica" if replicas == 1 else f"{replicas} replicas"
