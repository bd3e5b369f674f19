"""What gateways are told: every service, its revisions' weights, and the addresses of those that can answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from argosy.control.conditions import SYNCED
from argosy.control.reasons import ConditionReason
from argosy.control.revisions import number_of
from argosy.control.running import CRASH_LOOP
from argosy.core.inference_service import InferenceService, Revision
from argosy.core.routing import Endpoint, RevisionRoute, ServiceRoute
from argosy.core.workload import REVISION_LABEL, ReplicaPhase, WorkloadStatus


def service_route(
    service: InferenceService,
    revisions: Iterable[Revision],
    statuses: Sequence[WorkloadStatus],
    weights: Mapping[str, int],
) -> ServiceRoute:
    """One service. Adapters are routed if any revision that has a share, or would have one, serves them."""
    endpoints = {status.labels[REVISION_LABEL]: _endpoints(status) for status in statuses}
    names = sorted((weights.keys() | endpoints.keys()) - {""}, key=lambda name: number_of(name))
    adapters = {
        adapter
        for each in revisions
        if weights.get(each.short_name)
        for adapter in each.spec.template.adapters
    }  # fmt: skip
    return ServiceRoute(
        service=service.metadata.name,
        names=(service.metadata.name, *sorted(adapters - {service.metadata.name})),
        revisions=tuple(
            RevisionRoute(revision=name, weight=weights.get(name, 0), endpoints=endpoints.get(name, ()))
            for name in names
            if weights.get(name) or endpoints.get(name)
        ),
        policy=service.spec.gateway,
        slo=service.spec.scaling.slo,
        created=int(service.metadata.created_at),
        failure=failure_of(service, statuses),
    )


def failure_of(service: InferenceService, statuses: Sequence[WorkloadStatus]) -> str:
    """Why no replica will come, so that nobody is held in vain (F-14); "" while one is there or on its way."""
    replicas = [each for status in statuses for each in status.replicas if each.phase is not ReplicaPhase.DRAINING]
    if any(each.phase is ReplicaPhase.READY for each in replicas):
        return ""
    if service.spec.scaling.max_replicas == 0:
        return "max_replicas is 0: the service is stopped until it is raised"
    synced = next((each for each in service.status.conditions if each.type == SYNCED), None)
    if not replicas and synced is not None and synced.reason == ConditionReason.UNSCHEDULABLE:
        return synced.message
    if replicas and all(each.reason == CRASH_LOOP for each in replicas):
        worst = max(replicas, key=lambda each: each.restarts)
        return f"replica {worst.name} fails again and again: {worst.message or worst.reason}"
    return ""


def _endpoints(status: WorkloadStatus) -> tuple[Endpoint, ...]:
    """Ready, not spare, not draining, and with an address; in the order of their names."""
    ready = sorted(status.ready(), key=lambda each: each.name)
    return tuple(
        Endpoint(replica=each.name, address=each.address, revision=status.labels[REVISION_LABEL])
        for each in ready
        if each.address is not None
    )
