"""The loop: it observes, asks the pure functions, and lets the actor carry out what they say. The only file with hands.

One pass looks at the backend once and at every service for which anything changed: its spec, its replicas, its
traffic, or the time. It is woken by the store's watch, by the backend, by a gateway that holds requests, and by what
is due; each may be lost, because every `resync_seconds` everything is read anew and looked at.

Within a pass all services are decided first, then the routes are published, then the backend is told: so a gateway
hears of a replica's end before the replica does.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import aclosing

import msgspec

from argosy.control.acting import Actor
from argosy.control.conditions import SYNCED, since, synced_condition
from argosy.control.desired import Seen, first_decision, held_history, next_decision, scaling_sample
from argosy.control.memory import ServiceMemory
from argosy.control.notes import warning
from argosy.control.observer import LoopObserver, NoObserver
from argosy.control.publishing import Publisher
from argosy.control.reasons import EventReason
from argosy.control.routes import service_route
from argosy.control.scene import Observed
from argosy.control.services import Decision, reconcile
from argosy.control.settings import ControlSettings, SteadyClock
from argosy.control.traffic import ServiceTotals, TrafficLedger
from argosy.core.errors import ArgosyError, Conflict, NotFound
from argosy.core.inference_service import InferenceService, Revision
from argosy.core.interfaces import Backend, Change, Store
from argosy.core.load_report import GatewayReport
from argosy.core.routing import RouteTable
from argosy.core.workload import SERVICE_LABEL, WorkloadStatus

_log = logging.getLogger(__name__)
_SHORTEST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 1.0
_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 60.0
_GATEWAY_GONE_SECONDS = 60.0
_EMPTY: tuple[WorkloadStatus, ...] = ()


class ControlLoop:
    """Keeps what runs equal to what is declared. Everything happens on one event loop."""

    def __init__(
        self,
        store: Store,
        backend: Backend,
        settings: ControlSettings | None = None,
        clock: Callable[[], float] | None = None,
        observer: LoopObserver | None = None,
    ) -> None:
        self.settings = settings or ControlSettings()
        self.store, self.backend = store, backend
        self.ledger = TrafficLedger(self.settings.stale_seconds)
        self.services: dict[str, InferenceService] = {}
        self.revisions: dict[str, dict[str, Revision]] = {}
        self.statuses: dict[str, tuple[WorkloadStatus, ...]] = {}
        self.memories: dict[str, ServiceMemory] = {}
        self.trouble = "the control plane has not seen its replicas yet"
        self.clock = clock or SteadyClock()
        self._observer = observer or NoObserver()
        self._actor = Actor(store, backend, self.settings, self._observer)
        self._publisher = Publisher()
        self._weights: dict[str, dict[str, int]] = {}
        self._dirty: set[str] = set()
        self._due: dict[str, float] = {}
        self._scale_due: dict[str, float] = {}
        self._sampled: dict[str, tuple[float, ServiceTotals]] = {}
        self._failures: dict[str, int] = {}
        self._resync_at = -math.inf
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Go on until cancelled. Cancels: between or within passes; what was written stays, replicas run on."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_store())
            tasks.create_task(self._watch_backend())
            tasks.create_task(self._pass_for_ever())

    def record_report(self, gateway: str, report: GatewayReport) -> None:
        """Take a gateway's report; a request that is held for want of a replica is looked at right away (F-14)."""
        now = self.clock()
        for name in self.ledger.record(gateway, report, now):
            memory = self.memories.get(name)
            if memory is not None and memory.decision is not None and memory.decision.replicas == 0:
                self._scale_due[name] = now
                self._wake.set()

    def routes(self) -> RouteTable:
        """What gateways shall know now; version 0 = nothing is known yet, and nobody should be told."""
        return self._publisher.table

    async def routes_changed(self, version: int) -> RouteTable:
        """The routes as soon as they are newer than `version` (0 = as soon as there are any). Cancels: nothing."""
        return await self._publisher.newer(version)

    async def look(self) -> None:
        """One pass. Raises: nothing but cancellation; what fails is told and tried again."""
        now = self.clock()
        try:
            if now >= self._resync_at:
                await self._reread()
                self._resync_at = now + self.settings.resync_seconds
            await self._observe()
        except (ArgosyError, TimeoutError, OSError) as exc:
            if str(exc) != self.trouble:
                _log.warning("the state cannot be read", extra={"error": str(exc) or type(exc).__name__})
            self.trouble = str(exc) or type(exc).__name__
            self._resync_at = now + _FIRST_RETRY_SECONDS
            return
        self.trouble = ""
        self._scale(now)
        self._dirty |= {name for name, at in self._due.items() if at <= now}
        names = sorted(self._dirty & self.services.keys())
        self._dirty.clear()
        decisions = [(name, decision) for name in names if (decision := await self._decided(name, now)) is not None]
        self._publish()
        for name, decision in decisions:
            began = self.clock()
            await self._carried_out(name, decision, now)
            self._observer.looked(self.clock() - began, self.clock())
        await self._end_strays()

    async def _pass_for_ever(self) -> None:
        while True:
            began = self.clock()
            self._wake.clear()
            await self.look()
            took = self.clock() - began
            await asyncio.sleep(min(max(took, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS))
            wait = self._next_due() - self.clock()
            if wait > 0 and not self._dirty:
                try:
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    def _next_due(self) -> float:
        return min((self._resync_at, *self._due.values(), *self._scale_due.values()))

    async def _watch_store(self) -> None:
        while True:
            try:
                async with aclosing(self.store.watch(InferenceService)) as changes:
                    async for change in changes:
                        self._heard(change)
            except ArgosyError as exc:
                _log.warning("the watch of the store broke", extra={"error": str(exc)})
            await asyncio.sleep(_FIRST_RETRY_SECONDS)

    async def _watch_backend(self) -> None:
        while True:
            try:
                await self.backend.changed()
            except (ArgosyError, OSError) as exc:
                _log.warning("the backend gives no hints", extra={"error": str(exc)})
                await asyncio.sleep(_FIRST_RETRY_SECONDS)
            self._wake.set()
            await asyncio.sleep(_SHORTEST_PAUSE_SECONDS)

    def _heard(self, change: Change[InferenceService]) -> None:
        """A change of a service, maybe our own."""
        name, version = change.resource.metadata.name, change.resource.metadata.resource_version
        known = self.services.get(name)
        if known is not None and known.metadata.resource_version >= version:
            return
        if change.is_deleted:
            self._forget(name)
        else:
            self.services[name] = change.resource
            self._dirty.add(name)
        self._wake.set()

    def _forget(self, name: str) -> None:
        for kept in (self.services, self.memories, self._weights, self._due, self._scale_due, self._sampled):
            kept.pop(name, None)
        self._failures.pop(name, None)
        self.ledger.forget_service(name)

    async def _reread(self) -> None:
        """Everything from the store; then every service is looked at."""
        async with asyncio.timeout(self.settings.call_seconds):
            services = {each.metadata.name: each for each in await self.store.list(InferenceService)}
            revisions = await self.store.list(Revision)
        for name in self.services.keys() - services.keys():
            self._forget(name)
        self.services = services
        grouped: defaultdict[str, dict[str, Revision]] = defaultdict(dict)
        for each in revisions:
            grouped[each.spec.service][each.metadata.name] = each
        self.revisions = dict(grouped)
        self._dirty |= services.keys()
        self.ledger.forget_silent(self.clock(), _GATEWAY_GONE_SECONDS)

    async def _observe(self) -> None:
        """Everything from the backend, in one call; services whose replicas changed are looked at."""
        async with asyncio.timeout(self.settings.call_seconds):
            statuses = await self.backend.list()
        grouped: defaultdict[str, list[WorkloadStatus]] = defaultdict(list)
        for each in statuses:
            if SERVICE_LABEL in each.labels:
                grouped[each.labels[SERVICE_LABEL]].append(each)
        seen = {name: tuple(rows) for name, rows in grouped.items()}
        changed = {name for name in seen.keys() | self.statuses.keys() if seen.get(name) != self.statuses.get(name)}
        self._dirty |= changed
        self.statuses = seen
        self._actor.forget(each.name for each in statuses)

    def _scale(self, now: float) -> None:
        """Decide how many replicas, for every service whose time it is."""
        stale = self.ledger.is_stale(now)
        for name, service in self.services.items():
            memory = self._memory(service, now)
            self.ledger.snapshot(name, now)
            if service.spec.scaling.min_replicas == service.spec.scaling.max_replicas:
                self._scale_due.pop(name, None)
                continue
            if self._scale_due.get(name, now) > now:
                continue
            totals = self.ledger.totals(name)
            at, before = self._sampled.get(name, (now - self.settings.scaling_period_seconds, totals))
            seen = Seen(
                statuses=self.statuses.get(name, _EMPTY),
                gauges=self.ledger.gauges(name, now),
                totals=totals,
                before=before,
                interval_seconds=max(now - at, 1e-3),
                is_stale=stale,
            )
            was = memory.decision
            memory, decision = next_decision(service, memory, scaling_sample(seen, now))
            self.memories[name] = msgspec.structs.replace(memory, decision=decision)
            self._sampled[name] = (now, totals)
            self._scale_due[name] = now + self.settings.scaling_period_seconds
            if was is None or was.replicas != decision.replicas or was.is_limited != decision.is_limited:
                self._dirty.add(name)

    def _memory(self, service: InferenceService, now: float) -> ServiceMemory:
        name = service.metadata.name
        if name not in self.memories:
            decision = first_decision(service)
            self.memories[name] = ServiceMemory(
                watched_since=now, decision=decision, history=held_history(decision.replicas)
            )
        return self.memories[name]

    async def _decided(self, name: str, now: float) -> Decision | None:
        """Ask what to do about a service; a new revision is stored at once, because all else hangs on it."""
        service = self.services[name]
        memory = self._memory(service, now)
        try:
            decision = reconcile(
                Observed(
                    service=service,
                    revisions=tuple(self.revisions.get(name, {}).values()),
                    statuses=self.statuses.get(name, _EMPTY),
                    totals=self.ledger.totals(name),
                    memory=memory,
                    decision=memory.decision or first_decision(service),
                    settings=self.settings,
                    is_stale=self.ledger.is_stale(now),
                ),
                now,
            )
            if decision.create_revision is not None:
                made = await self._actor.create_revision(decision.create_revision)
                self.revisions.setdefault(name, {})[made.metadata.name] = made
        except Conflict:
            self._resync_at = now
            return None
        except Exception as exc:  # noqa: BLE001  # boundary: one service's failure is told and leaves the others alone
            await self._failed(name, exc, now)
            return None
        self.memories[name] = decision.memory
        self._weights[name] = decision.weights
        return decision

    async def _carried_out(self, name: str, decision: Decision, now: float) -> None:
        """Backend, events, status, old revisions. What the backend refuses stands in the status, and is tried again."""
        service = self.services.get(name)
        if service is None:
            return
        error = await self._told_backend(name, decision)
        notes = decision.notes
        if error is not None:
            notes = (*notes, warning(EventReason.RECONCILE_FAILED, str(error) or type(error).__name__))
        condition = since(synced_condition(error), service.status.conditions, now)
        others = tuple(each for each in decision.status.conditions if each.type != SYNCED)
        status = msgspec.structs.replace(decision.status, conditions=(*others, condition))
        try:
            await self._actor.tell(name, notes, now)
            self.services[name] = await self._actor.write_status(service, status)
            await self._actor.delete_revisions(decision.delete_revisions)
        except (Conflict, NotFound):
            self._resync_at = now  # Somebody else wrote: read everything again, decide again (F-12).
            return
        except (ArgosyError, TimeoutError) as exc:
            error = exc
        else:
            for each in decision.delete_revisions:
                self.revisions.get(name, {}).pop(each.metadata.name, None)
        if error is not None:
            self._retry_later(name, error, now)
            return
        self._failures.pop(name, None)
        self._due.pop(name, None)
        if decision.requeue_after_seconds is not None:
            self._due[name] = now + decision.requeue_after_seconds

    async def _told_backend(self, name: str, decision: Decision) -> Exception | None:
        try:
            await self._actor.run(decision, self.statuses.get(name, _EMPTY))
        except Exception as exc:  # noqa: BLE001  # boundary: one service's failure is told and leaves the others alone
            return exc
        return None

    def _retry_later(self, name: str, error: Exception, now: float) -> None:
        tries = self._failures.get(name, 0)
        self._failures[name] = tries + 1
        self._due[name] = now + min(_FIRST_RETRY_SECONDS * 2**tries, _LONGEST_RETRY_SECONDS)
        facts = {"service": name, "error": str(error) or type(error).__name__, "tries": tries + 1}
        is_expected = isinstance(error, ArgosyError | TimeoutError | OSError)
        self._observer.failed(synced_condition(error).reason)
        _log.warning("a service could not be reconciled", extra=facts, exc_info=None if is_expected else error)

    async def _failed(self, name: str, error: Exception, now: float) -> None:
        """Nothing could be decided: say so where people look, leave what runs, try again later and later."""
        self._retry_later(name, error, now)
        service = self.services[name]
        condition = since(synced_condition(error), service.status.conditions, now)
        others = tuple(each for each in service.status.conditions if each.type != SYNCED)
        status = msgspec.structs.replace(service.status, conditions=(*others, condition))
        try:
            await self._actor.tell(name, [warning(EventReason.RECONCILE_FAILED, condition.message)], now)
            self.services[name] = await self._actor.write_status(service, status)
        except (ArgosyError, TimeoutError):
            self._resync_at = min(self._resync_at, self._due[name])

    def _publish(self) -> None:
        self._publisher.publish(
            service_route(
                service,
                self.revisions.get(name, {}).values(),
                self.statuses.get(name, _EMPTY),
                self._weights.get(name) or {each.revision: each.weight for each in service.status.revisions},
            )
            for name, service in sorted(self.services.items())
        )

    async def _end_strays(self) -> None:
        """Workloads and revisions of services that are gone."""
        try:
            for name in self.statuses.keys() - self.services.keys():
                known = {each.name: each for each in self.statuses[name]}
                for workload in known:
                    await self._actor.end(workload, known)
            for name in self.revisions.keys() - self.services.keys():
                await self._actor.delete_revisions(self.revisions[name].values())
                del self.revisions[name]
        except (ArgosyError, TimeoutError) as exc:
            _log.warning("what a deleted service left cannot be ended yet", extra={"error": str(exc)})
            self._resync_at = min(self._resync_at, self.clock() + _FIRST_RETRY_SECONDS)
