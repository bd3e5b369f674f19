"""When it is time to ask the autoscaler, and with which sample: once a period per service, at once when one is held."""

from __future__ import annotations

import math

import msgspec

from argosy.control.desired import Seen, next_decision, scaling_sample
from argosy.control.traffic import ServiceTotals
from argosy.control.world import World
from argosy.core.inference_service import InferenceService

_SHORTEST_INTERVAL_SECONDS = 1e-3


class ScalingTicks:
    """Remembers, per service, when it was asked last and what had been counted by then."""

    def __init__(self, world: World, period_seconds: float) -> None:
        self._world, self._period_seconds = world, period_seconds
        self._asked: dict[str, tuple[float, ServiceTotals]] = {}
        self._due: dict[str, float] = {}

    def hurry(self, service: str, now: float) -> bool:
        """A request is held: ask now, if the service has no replica. Whether that is so."""
        memory = self._world.memories.get(service)
        if memory is None or memory.decision is None or memory.decision.replicas > 0:
            return False
        self._due[service] = now
        return True

    def next_due(self) -> float:
        """When the next one is due."""
        return min(self._due.values(), default=math.inf)

    def run(self, now: float) -> set[str]:
        """Decide for all that are due; the names of the services whose number changed."""
        world, changed = self._world, set()
        stale = world.ledger.is_stale(now)
        for gone in self._due.keys() - world.services.keys():
            self._due.pop(gone)
            self._asked.pop(gone, None)
        for name, service in world.services.items():
            world.ledger.snapshot(name, now)
            policy = service.spec.scaling
            if policy.min_replicas == policy.max_replicas:
                self._due.pop(name, None)
            elif self._due.get(name, now) <= now and self._decide(name, service, stale, now):
                changed.add(name)
        return changed

    def _decide(self, name: str, service: InferenceService, is_stale: bool, now: float) -> bool:
        world = self._world
        memory, totals = world.memory_of(service, now), world.ledger.totals(name)
        at, before = self._asked.get(name, (now - self._period_seconds, totals))
        seen = Seen(
            statuses=world.statuses_of(name),
            gauges=world.ledger.gauges(name, now),
            totals=totals,
            before=before,
            interval_seconds=max(now - at, _SHORTEST_INTERVAL_SECONDS),
            is_stale=is_stale,
        )
        was = memory.decision
        memory, decision = next_decision(service, memory, scaling_sample(seen, now))
        world.memories[name] = msgspec.structs.replace(memory, decision=decision)
        self._asked[name] = (now, totals)
        self._due[name] = now + self._period_seconds
        return was is None or was.replicas != decision.replicas
