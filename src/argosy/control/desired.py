"""From what gateways and the backend say to one `ScalingSample`, and from there to a number of replicas. Pure.

The number holds in every doubt: without a gateway's report, after a restart, and while nothing has been measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from argosy.control.autoscale import desired_replicas
from argosy.control.memory import ServiceMemory
from argosy.control.notes import Note
from argosy.control.reasons import EventReason
from argosy.control.scaling_history import ScalingHistory, Wish
from argosy.control.traffic import ServiceGauges, ServiceTotals
from argosy.core.inference_service import InferenceService
from argosy.core.load_report import ReplicaReport
from argosy.core.scaling import ScalingDecision, ScalingPolicy, ScalingSample
from argosy.core.workload import ReplicaPhase, WorkloadStatus

FIXED = "Fixed"
HELD = "Held"
_COMING = frozenset({ReplicaPhase.PENDING, ReplicaPhase.STARTING, ReplicaPhase.BACKOFF, ReplicaPhase.UNREADY})


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a service's load now. totals: so far; before: at the last decision."""

    statuses: tuple[WorkloadStatus, ...]
    gauges: ServiceGauges
    totals: ServiceTotals
    before: ServiceTotals
    interval_seconds: float
    is_stale: bool


def scaling_sample(seen: Seen, now: float) -> ScalingSample:
    """What a decision sees."""
    replicas = [each for status in seen.statuses for each in status.replicas if not each.is_spare]
    ready = [each.name for each in replicas if each.phase is ReplicaPhase.READY]
    reports = [load.report for name in ready if (load := seen.gauges.replicas.get(name)) and load.report is not None]
    done = seen.totals.all_revisions().since(seen.before.all_revisions())
    running, waiting = _requests(reports, seen.gauges, len(ready))
    return ScalingSample(
        now=now,
        interval_seconds=seen.interval_seconds,
        ready_replicas=len(ready),
        starting_replicas=sum(each.phase in _COMING for each in replicas),
        num_requests_running=running,
        num_requests_waiting=waiting,
        num_requests_held=seen.gauges.held,
        max_num_seqs=max((each.max_num_seqs for each in reports), default=0),
        kv_cache_usage_ratio=_mean(each.kv_cache_usage_ratio for each in reports),
        arrivals=seen.totals.arrivals - seen.before.arrivals,
        completions=done.completions,
        slo_good=done.slo_good,
        prompt_tokens=done.prompt_tokens,
        generation_tokens=done.generation_tokens,
        started=done.started,
        queue_seconds=done.queue_seconds,
        is_stale=seen.is_stale or (len(reports) < len(ready) and not reports),
    )


def _requests(reports: list[ReplicaReport], gauges: ServiceGauges, ready: int) -> tuple[int, int]:
    """Running and waiting. What a gateway has open at replicas that did not report counts as running."""
    running = sum(each.num_requests_running for each in reports)
    waiting = sum(each.num_requests_waiting for each in reports)
    if len(reports) < ready:
        running = max(running, gauges.in_flight - waiting)
    return running, waiting


def _mean(values: Iterable[float]) -> float:
    found = [value for value in values if math.isfinite(value)]
    return sum(found) / len(found) if found else 0.0


def held_history(replicas: int) -> ScalingHistory:
    """The past of a number that somebody before us decided: it is held as long as a decision of ours would be."""
    wish = Wish(at=0.0, replicas=replicas)
    return ScalingHistory(replicas=replicas, falling=(wish,), rising=(wish,))


def first_decision(service: InferenceService) -> ScalingDecision:
    """Before anything was measured: what the last control plane decided, else enough to see whether it runs."""
    policy, status = service.spec.scaling, service.status
    if policy.min_replicas == policy.max_replicas:
        return _fixed(policy)
    if status.observed_generation:
        return _within(policy, status.desired_replicas, "what ran before goes on until there is something to measure")
    wanted = max(policy.min_replicas, min(1, policy.max_replicas))
    return ScalingDecision(replicas=wanted, reason="Initial", message="nothing has been measured yet")


def bounded_decision(service: InferenceService, decision: ScalingDecision) -> ScalingDecision:
    """A decision of before under the policy of now: bounds hold at once."""
    policy = service.spec.scaling
    if policy.min_replicas == policy.max_replicas:
        return _fixed(policy)
    if policy.min_replicas <= decision.replicas <= policy.max_replicas and decision.reason != FIXED:
        return decision
    return _within(policy, decision.replicas, "the policy's bounds changed")


def next_decision(
    service: InferenceService, memory: ServiceMemory, sample: ScalingSample
) -> tuple[ServiceMemory, ScalingDecision]:
    """The autoscaler's decision, and the memory with its history."""
    policy = service.spec.scaling
    if policy.min_replicas == policy.max_replicas:
        return memory, _fixed(policy)
    outcome = desired_replicas(policy, sample, memory.history, sample.now)
    return msgspec.structs.replace(memory, history=outcome.history), outcome.decision


def scaling_notes(before: int, decision: ScalingDecision) -> tuple[Note, ...]:
    """What to tell of a change of the number."""
    after = decision.replicas
    if before == after:
        return ()
    message = f"from {before} to {after}: {decision.message}"
    if after == 0:
        return (Note(reason=EventReason.SCALED_TO_ZERO, message=message),)
    if before == 0 and decision.reason not in (FIXED, HELD):
        return (Note(reason=EventReason.WOKEN, message=f"somebody asks and no replica runs; {message}"),)
    reason = EventReason.SCALED_UP if after > before else EventReason.SCALED_DOWN
    return (Note(reason=reason, message=message),)


def _fixed(policy: ScalingPolicy) -> ScalingDecision:
    message = f"min_replicas and max_replicas are both {policy.min_replicas}"
    return ScalingDecision(replicas=policy.min_replicas, reason=FIXED, message=message)


def _within(policy: ScalingPolicy, replicas: int, message: str) -> ScalingDecision:
    bounded = min(max(replicas, policy.min_replicas), policy.max_replicas)
    return ScalingDecision(replicas=bounded, reason=HELD, message=message, is_limited=bounded != replicas)
