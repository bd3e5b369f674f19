"""`argosy why`: how a service is, in one answer, the facts behind it in order, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from argosy.control.conditions import READY, SYNCED
from argosy.control.promotion import Verdict
from argosy.control.running import is_failing
from argosy.control.traffic import ServiceGauges
from argosy.control.views import with_start_phases
from argosy.core.inference_service import InferenceService, RolloutPhase, ServicePhase
from argosy.core.metadata import ConditionStatus
from argosy.core.scaling import ScalingDecision
from argosy.core.service_views import Why
from argosy.core.workload import ReplicaPhase, ReplicaStatus, WorkloadStatus


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer is made from. trouble: why the control plane itself sees nothing, if so.

    now: unix seconds. is_stale: no gateway reports. log_tail: of the replica `failing_replica` picks.
    """

    service: InferenceService
    statuses: tuple[WorkloadStatus, ...]
    decision: ScalingDecision | None
    verdict: Verdict | None
    gauges: ServiceGauges
    is_stale: bool
    trouble: str
    log_tail: tuple[str, ...]
    now: float

    @property
    def replicas(self) -> tuple[ReplicaStatus, ...]:
        """All replicas, those that drain included."""
        return tuple(replica for status in self.statuses for replica in status.replicas)


def why(evidence: Evidence) -> Why:
    """The answer."""
    return Why(
        service=evidence.service.metadata.name,
        answer=_answer(evidence),
        facts=tuple(_facts(evidence)),
        commands=tuple(_commands(evidence)),
        start_seconds=_start_seconds(evidence),
        log_tail=evidence.log_tail,
    )


def _start_seconds(evidence: Evidence) -> dict[str, dict[str, float]]:
    """The parts of each start, from the backend, else as the replica told a gateway."""
    loads = evidence.gauges.replicas
    reports = {each.name: loads[each.name].report if each.name in loads else None for each in evidence.replicas}
    known = [with_start_phases(each, reports[each.name]) for each in evidence.replicas]
    return {each.name: each.start_seconds for each in known if each.start_seconds}


def failing_replica(statuses: Iterable[WorkloadStatus]) -> tuple[str, str] | None:
    """Workload and replica whose log tells most: the one that failed most often. None if all is well."""
    failing = [
        (replica.restarts, status.name, replica.name)
        for status in statuses
        for replica in status.replicas
        if is_failing(replica)
    ]
    return max(failing)[1:] if failing else None


def _answer(evidence: Evidence) -> str:
    service = evidence.service
    name, status = service.metadata.name, service.status
    if evidence.trouble:
        return f"The control plane cannot see what runs: {evidence.trouble}."
    if status.observed_generation < service.metadata.generation:
        return f"{name} was changed a moment ago and has not been looked at yet."
    rollout = status.rollout
    match status.phase:
        case ServicePhase.READY:
            return f"{name} is ready: {_count(status.ready_replicas, 'replica')} {_verb(status.ready_replicas)}."
        case ServicePhase.IDLE:
            return f"{name} sleeps: nobody asks, so no replica runs. The first request starts one."
        case ServicePhase.FAILED:
            return f"{name} cannot answer: {_worst(evidence)}."
        case ServicePhase.DEGRADED if rollout.phase is RolloutPhase.ROLLED_BACK:
            return f"{name} answers with {rollout.stable}, because {rollout.target} failed: {rollout.message}."
        case ServicePhase.DEGRADED:
            share = f"{status.ready_replicas} of {status.desired_replicas} replicas"
            return f"{name} answers with {share}: {_worst(evidence)}."
        case _:
            return _on_its_way(evidence)


def _on_its_way(evidence: Evidence) -> str:
    name, status = evidence.service.metadata.name, evidence.service.status
    ready = next((each for each in status.conditions if each.type == READY), None)
    rollout = status.rollout
    if ready is None:
        return f"{name} has not been looked at yet."
    if ready.status is not ConditionStatus.TRUE:
        return f"{name} cannot answer yet: {ready.message}."
    if rollout.phase is RolloutPhase.STABLE:
        return f"{name} answers, and more replicas are starting."
    return f"{name} answers while {rollout.target} takes over: {rollout.message}."


def _worst(evidence: Evidence) -> str:
    found = failing_replica(evidence.statuses)
    if found is None:
        return next((each.message for each in evidence.statuses if each.message), "replicas are missing")
    replica = next(each for each in evidence.replicas if each.name == found[1])
    return f"{replica.name} {_trouble_of(replica)}"


def _facts(evidence: Evidence) -> Iterator[str]:
    status = evidence.service.status
    synced = next((each for each in status.conditions if each.type == SYNCED), None)
    if synced is not None and synced.status is ConditionStatus.FALSE:
        yield f"The last change was not taken, and is tried again: {synced.message}"
    if evidence.decision is not None:
        count = _count(evidence.decision.replicas, "replica")
        yield f"{count} wanted: {evidence.decision.message or evidence.decision.reason}"
    if evidence.service.spec.scaling.min_replicas != evidence.service.spec.scaling.max_replicas and evidence.is_stale:
        yield "No gateway reports, so the number of replicas is held."
    if status.rollout.phase is not RolloutPhase.STABLE:
        yield f"Rollout {status.rollout.phase.value}: {status.rollout.message}"
    if evidence.verdict is not None:
        yield f"Promotion: {evidence.verdict.kind.value}, as {evidence.verdict.message}"
    for each in status.revisions:
        spares = f", {_count(each.spare_replicas, 'warm spare')}" if each.spare_replicas else ""
        yield (
            f"{each.revision}: {each.weight} % of the traffic, "
            f"{each.ready_replicas} of {_count(each.desired_replicas, 'replica')} ready{spares}"
        )
    yield from _replica_facts(evidence)
    if evidence.gauges.held:
        yield f"{_count(evidence.gauges.held, 'request')} held at the gateway for want of a replica"


def _replica_facts(evidence: Evidence) -> Iterator[str]:
    for status in evidence.statuses:
        if status.message:
            yield f"{status.name}: {status.message}"
        for replica in status.replicas:
            load = evidence.gauges.replicas.get(replica.name)
            if replica.phase is ReplicaPhase.STARTING and not is_failing(replica):
                seconds = evidence.now - replica.started_at if replica.started_at is not None else 0.0
                yield f"{replica.name} has been starting for {max(seconds, 0.0):.0f} s{_said(replica)}"
            elif replica.phase is ReplicaPhase.DRAINING:
                yield f"{replica.name} finishes its requests and ends"
            elif replica.phase is not ReplicaPhase.READY:
                yield f"{replica.name} {_trouble_of(replica)}"
            elif load is not None and load.is_ejected:
                yield f"{replica.name} is ready, but failed so many requests that the gateway avoids it for now"


def _said(replica: ReplicaStatus) -> str:
    return f": {replica.message}" if replica.message else ""


def _trouble_of(replica: ReplicaStatus) -> str:
    detail = replica.message or replica.reason
    match replica.phase:
        case ReplicaPhase.PENDING:
            return f"waits for room: {detail}" if detail else "waits for room"
        case ReplicaPhase.BACKOFF:
            return f"failed ({_count(replica.restarts, 'time')}) and is started again soon: {detail}"
        case ReplicaPhase.UNREADY:
            return f"runs but does not answer: {detail}"
        case _:
            return f"starts again after {_count(replica.restarts, 'failure')}{_said(replica)}"


def _commands(evidence: Evidence) -> Iterator[str]:
    name, spec = evidence.service.metadata.name, evidence.service.spec
    rollout = evidence.service.status.rollout
    if failing_replica(evidence.statuses) is not None:
        yield f"argosy logs {name}"
    if rollout.phase is RolloutPhase.ROLLED_BACK:
        yield f"argosy events {name}"
        yield f"argosy rollout undo {name}"
    elif rollout.phase is not RolloutPhase.STABLE:
        yield f"argosy rollout status {name}"
    pending = any(each.phase is ReplicaPhase.PENDING for each in evidence.replicas)
    if pending and rollout.phase is RolloutPhase.PROGRESSING and spec.rollout.max_unavailable == 0:
        yield "argosy deploy -f service.yaml  # with rollout.max_unavailable: 1, the old replica makes room"
    elif pending:
        yield "argosy top  # who holds the devices"
    if spec.scaling.max_replicas == 0:
        yield f"argosy scale {name} 1"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _verb(number: int) -> str:
    return "answers" if number == 1 else "answer"
