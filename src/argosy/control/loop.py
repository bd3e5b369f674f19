"""The loop: it observes, asks the pure functions, and lets the actor carry out what they say.

One pass looks at the backend once and at every service for which anything changed: its spec, its replicas, its
traffic, or the time. It is woken by the store's watch, by the backend, by a gateway that holds requests, and by what
is due; each hint may be lost, because every `resync_seconds` everything is read anew and looked at.

Within a pass all services are decided first, then the routes are published, then the backend is told: so a gateway
hears of a replica's end before the replica does.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import aclosing

import msgspec

from argosy.control.acting import Actor
from argosy.control.conditions import SYNCED, since, synced_condition
from argosy.control.notes import Note, warning
from argosy.control.observer import LoopObserver, NoObserver
from argosy.control.outlook import Outlook
from argosy.control.publishing import Publisher
from argosy.control.reasons import EventReason
from argosy.control.routes import service_route
from argosy.control.scaling_ticks import ScalingTicks
from argosy.control.service_status import refused_status
from argosy.control.services import Decision, reconcile
from argosy.control.settings import ControlSettings, SteadyClock
from argosy.control.validation import spec_refusal
from argosy.control.world import World
from argosy.core.errors import ArgosyError, Conflict, NotFound
from argosy.core.inference_service import InferenceService, InferenceServiceStatus, Revision
from argosy.core.interfaces import Backend, Change, Store
from argosy.core.load_report import GatewayReport
from argosy.core.routing import RouteTable

_log = logging.getLogger(__name__)
_SHORTEST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 1.0
_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 60.0
_GATEWAY_GONE_SECONDS = 60.0


class ControlLoop:
    """Keeps what runs equal to what is declared. Everything happens on one event loop.

    world: what it knows; outlook: the answers to people's questions.
    """

    def __init__(
        self,
        store: Store,
        backend: Backend,
        settings: ControlSettings | None = None,
        clock: Callable[[], float] | None = None,
        observer: LoopObserver | None = None,
    ) -> None:
        self.settings = settings or ControlSettings()
        self.clock = clock or SteadyClock()
        self.world = World(self.settings)
        self.outlook = Outlook(self.world, store, backend, self.settings, self.clock)
        self._store, self._backend = store, backend
        self._observer = observer or NoObserver()
        self._actor = Actor(store, backend, self.settings, self._observer)
        self._publisher = Publisher()
        self._ticks = ScalingTicks(self.world, self.settings.scaling_period_seconds)
        self._dirty: set[str] = set()
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._resync_at = -math.inf
        self._blind_until = -math.inf
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
        for name in self.world.ledger.record(gateway, report, now):
            if self._ticks.hurry(name, now):
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
        if now < self._blind_until or not await self._observe(now):
            return
        self._dirty |= self._ticks.run(now)
        self._dirty |= {name for name, at in self._due.items() if at <= now}
        names = sorted(self._dirty & self.world.services.keys())
        self._dirty.clear()
        uids = {name: self.world.services[name].metadata.uid for name in names}
        decisions = [(name, decision) for name in names if (decision := await self._decided(name, now)) is not None]
        self._publish()
        for name, decision in decisions:
            service = self.world.services.get(name)
            if service is None or service.metadata.uid != uids[name]:
                continue  # Deleted meanwhile; one of the same name that came since is looked at next.
            began = self.clock()
            await self._carry_out(service, decision, now)
            self._observer.looked(self.clock() - began, self.clock())
        await self._end_strays()

    async def _pass_for_ever(self) -> None:
        while True:
            began = self.clock()
            self._wake.clear()
            await self.look()
            took = self.clock() - began
            await asyncio.sleep(min(max(took, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS))
            due = min((self._resync_at, self._ticks.next_due(), *self._due.values()))
            is_blind = self._blind_until > self.clock()
            if is_blind:
                due = self._blind_until
            if (self._dirty and not is_blind) or due <= self.clock():
                continue
            try:
                async with asyncio.timeout(due - self.clock()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _watch_store(self) -> None:
        while True:
            try:
                async with aclosing(self._store.watch(InferenceService)) as changes:
                    async for change in changes:
                        self.heard(change)
            except ArgosyError as exc:
                _log.warning("the watch of the store broke", extra={"error": str(exc)})
            await asyncio.sleep(_FIRST_RETRY_SECONDS)

    async def _watch_backend(self) -> None:
        while True:
            try:
                await self._backend.changed()
            except (ArgosyError, OSError) as exc:
                _log.warning("the backend gives no hints", extra={"error": str(exc)})
                await asyncio.sleep(_FIRST_RETRY_SECONDS)
            self._wake.set()
            await asyncio.sleep(_SHORTEST_PAUSE_SECONDS)

    def heard(self, change: Change[InferenceService]) -> None:
        """Take a change of a service, maybe our own; an old one that comes late is none (F-12)."""
        name, version = change.resource.metadata.name, change.resource.metadata.resource_version
        known = self.world.services.get(name)
        if known is not None and known.metadata.resource_version >= version:
            return
        if change.is_deleted:
            self._forget(name)
        else:
            self.world.services[name] = change.resource
            self._dirty.add(name)
        self._wake.set()

    def _forget(self, name: str) -> None:
        self.world.forget(name)
        self._due.pop(name, None)
        self._failures.pop(name, None)

    async def _observe(self, now: float) -> bool:
        """Read what there is: from the store if it is time, from the backend always. False if it cannot be read."""
        try:
            async with asyncio.timeout(self.settings.call_seconds):
                if now >= self._resync_at:
                    before = dict(self.world.services)
                    services = await self._store.list(InferenceService)
                    self.world.take_services(services, await self._store.list(Revision), before)
                    self._dirty |= self.world.services.keys()
                    for gone in self._due.keys() - self.world.services.keys():
                        self._forget(gone)
                    self._resync_at = now + self.settings.resync_seconds
                statuses = await self._backend.list()
        except (ArgosyError, TimeoutError, OSError) as exc:
            trouble = str(exc) or type(exc).__name__
            if trouble != self.world.trouble:
                _log.warning("what is declared or what runs cannot be read", extra={"error": trouble})
            self.world.trouble = trouble
            # Until both were read again nothing is decided: what is not known must not look as if it were gone.
            self._resync_at, self._blind_until = now, now + _FIRST_RETRY_SECONDS
            return False
        self.world.trouble = ""
        self.world.ledger.forget_silent(now, _GATEWAY_GONE_SECONDS)
        self._dirty |= self.world.take_statuses(statuses)
        self._actor.forget(each.name for each in statuses)
        return True

    async def _decided(self, name: str, now: float) -> Decision | None:
        """Ask what to do about a service; a new revision is stored at once, because all else hangs on it."""
        service = self.world.services.get(name)
        if service is None:
            return None  # Deleted while another one was decided.
        refusal = spec_refusal(service, self.world.revisions_of(name))
        if refusal is not None:
            self._due.pop(name, None)
            status, note = refused_status(service, refusal, now)
            await self._written(service, status, () if status == service.status else (note,), None, now)
            return None
        try:
            decision = reconcile(self.world.observed(service, now), now)
            if decision.create_revision is not None:
                made = await self._actor.create_revision(decision.create_revision)
                self.world.revisions.setdefault(name, {})[made.metadata.name] = made
        except Conflict:
            self._resync_at = now
            return None
        except Exception as exc:  # noqa: BLE001  # boundary: one service's failure is told and leaves the others alone
            self._retry_later(name, exc, now)
            note = warning(EventReason.RECONCILE_FAILED, synced_condition(exc).message)
            await self._written(service, service.status, (note,), exc, now)
            return None
        if name not in self.world.services:
            return None
        self.world.memories[name] = decision.memory
        self.world.weights[name] = decision.weights
        return decision

    async def _carry_out(self, service: InferenceService, decision: Decision, now: float) -> None:
        """Backend, events, status, old revisions. What the backend refuses stands in the status, and is tried again."""
        name = service.metadata.name
        notes, error = decision.notes, await self._backend_refusal(name, decision)
        if error is not None:
            notes = (*notes, warning(EventReason.RECONCILE_FAILED, synced_condition(error).message))
            self._retry_later(name, error, now)
        is_written = await self._written(service, decision.status, notes, error, now)
        if error is not None or not is_written:
            return
        self._failures.pop(name, None)
        self._due.pop(name, None)
        if decision.requeue_after_seconds is not None:
            self._due[name] = now + decision.requeue_after_seconds
        try:
            await self._actor.delete_revisions(decision.delete_revisions)
        except (ArgosyError, TimeoutError) as exc:
            self._retry_later(name, exc, now)
            return
        for each in decision.delete_revisions:
            self.world.revisions.get(name, {}).pop(each.metadata.name, None)

    async def _backend_refusal(self, name: str, decision: Decision) -> Exception | None:
        """Tell the backend; what it raised, if anything."""
        try:
            await self._actor.run(decision, self.world.statuses_of(name))
        except Exception as exc:  # noqa: BLE001  # boundary: one service's failure is told and leaves the others alone
            return exc
        return None

    async def _written(
        self,
        service: InferenceService,
        status: InferenceServiceStatus,
        notes: tuple[Note, ...],
        error: Exception | None,
        now: float,
    ) -> bool:
        """Store events, then the status: an event may be told twice after a crash, never lost. Whether it is stored."""
        name = service.metadata.name
        condition = since(synced_condition(error), service.status.conditions, now)
        others = tuple(each for each in status.conditions if each.type != SYNCED)
        status = msgspec.structs.replace(status, conditions=(*others, condition))
        try:
            await self._actor.tell(name, notes, now)
            stored = await self._actor.write_status(service, status)
        except (Conflict, NotFound):
            self._resync_at = now  # Somebody else wrote: read everything again, decide again (F-12).
            return False
        except (ArgosyError, TimeoutError) as exc:
            self._retry_later(name, exc, now)
            return False
        if name in self.world.services:
            self.world.services[name] = stored
        return True

    def _retry_later(self, name: str, error: Exception, now: float) -> None:
        tries = self._failures.get(name, 0)
        self._failures[name] = tries + 1
        self._due[name] = now + min(_FIRST_RETRY_SECONDS * 2 ** min(tries, 10), _LONGEST_RETRY_SECONDS)
        self._observer.failed(synced_condition(error).reason)
        facts = {"service": name, "error": str(error) or type(error).__name__, "tries": tries + 1}
        is_expected = isinstance(error, ArgosyError | TimeoutError | OSError)
        _log.warning("a service could not be reconciled", extra=facts, exc_info=None if is_expected else error)

    def _publish(self) -> None:
        world = self.world
        self._publisher.publish(
            service_route(
                service,
                world.revisions_of(name),
                world.statuses_of(name),
                world.weights.get(name) or {each.revision: each.weight for each in service.status.revisions},
            )
            for name, service in sorted(world.services.items())
        )

    async def _end_strays(self) -> None:
        """End workloads and forget revisions of services that are gone."""
        world = self.world
        try:
            for name in world.statuses.keys() - world.services.keys():
                known = {each.name: each for each in world.statuses[name]}
                for workload in known:
                    await self._actor.end(workload, known)
            for name in world.revisions.keys() - world.services.keys():
                await self._actor.delete_revisions(world.revisions[name].values())
                del world.revisions[name]
        except (ArgosyError, TimeoutError) as exc:
            _log.warning("what a deleted service left cannot be ended yet", extra={"error": str(exc)})
            self._resync_at = min(self._resync_at, self.clock() + _FIRST_RETRY_SECONDS)
