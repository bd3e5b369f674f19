"""Everything the loop knows at a moment: the store's resources, the backend's replicas, the gateways' reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from argosy.control.desired import first_decision, held_history
from argosy.control.memory import ServiceMemory
from argosy.control.scene import Observed
from argosy.control.settings import ControlSettings
from argosy.control.traffic import TrafficLedger
from argosy.core.inference_service import InferenceService, Revision
from argosy.core.workload import SERVICE_LABEL, WorkloadStatus

_NONE: tuple[WorkloadStatus, ...] = ()


class World:
    """Written by the loop, read by views. trouble: why the loop sees nothing now; "" = it sees."""

    def __init__(self, settings: ControlSettings) -> None:
        self.services: dict[str, InferenceService] = {}
        self.revisions: dict[str, dict[str, Revision]] = {}
        self.statuses: dict[str, tuple[WorkloadStatus, ...]] = {}
        self.memories: dict[str, ServiceMemory] = {}
        self.weights: dict[str, dict[str, int]] = {}
        self.ledger = TrafficLedger(settings.stale_seconds)
        self.trouble = "the control plane has only just started"
        self._settings = settings

    def statuses_of(self, service: str) -> tuple[WorkloadStatus, ...]:
        """What runs of a service."""
        return self.statuses.get(service, _NONE)

    def revisions_of(self, service: str) -> tuple[Revision, ...]:
        """Its revisions."""
        return tuple(self.revisions.get(service, {}).values())

    def memory_of(self, service: InferenceService, now: float) -> ServiceMemory:
        """What is remembered of a service; at first sight, what its status says is held. A plan leaves no memory."""
        name = service.metadata.name
        known = self.memories.get(name)
        if known is not None:
            return known
        decision = first_decision(service)
        fresh = ServiceMemory(watched_since=now, decision=decision, history=held_history(decision.replicas))
        if name in self.services:
            self.memories[name] = fresh
        return fresh

    def observed(self, service: InferenceService, now: float) -> Observed:
        """What a decision sees of a service."""
        name = service.metadata.name
        memory = self.memory_of(service, now)
        return Observed(
            service=service,
            revisions=self.revisions_of(name),
            statuses=self.statuses_of(name),
            totals=self.ledger.totals(name),
            memory=memory,
            decision=memory.decision or first_decision(service),
            settings=self._settings,
            is_stale=self.ledger.is_stale(now),
        )

    def take_services(
        self,
        services: Iterable[InferenceService],
        revisions: Iterable[Revision],
        before: Mapping[str, InferenceService] | None = None,
    ) -> None:
        """All there are in the store; the others are forgotten.

        before: what was known when the store was asked. What the watch told since is newer than the answer and stays.
        """
        found = {each.metadata.name: each for each in services}
        for name, known in self.services.items():
            if before is not None and known is not before.get(name) and _is_newer(known, found.get(name)):
                found[name] = known
        for name in (before or {}).keys() - self.services.keys():
            found.pop(name, None)
        for name in self.services.keys() - found.keys():
            self.forget(name)
        self.services = found
        grouped: defaultdict[str, dict[str, Revision]] = defaultdict(dict)
        for each in revisions:
            grouped[each.spec.service][each.metadata.name] = each
        self.revisions = dict(grouped)

    def take_statuses(self, statuses: Iterable[WorkloadStatus]) -> set[str]:
        """All there are in the backend; the names of the services for which anything changed."""
        grouped: defaultdict[str, list[WorkloadStatus]] = defaultdict(list)
        for each in statuses:
            if SERVICE_LABEL in each.labels:
                grouped[each.labels[SERVICE_LABEL]].append(each)
        seen = {name: tuple(rows) for name, rows in grouped.items()}
        changed = {name for name in seen.keys() | self.statuses.keys() if seen.get(name) != self.statuses.get(name)}
        self.statuses = seen
        return changed

    def forget(self, service: str) -> None:
        """A service that is gone. Its revisions and workloads stay known until they are ended."""
        for kept in (self.services, self.memories, self.weights):
            kept.pop(service, None)
        self.ledger.forget_service(service)


def _is_newer(known: InferenceService, listed: InferenceService | None) -> bool:
    return listed is None or known.metadata.resource_version > listed.metadata.resource_version
