"""The control plane as its API sees it: store, backend and loop behind the questions people and gateways ask.

What is declared goes into the store and is answered at once; the loop does the rest. What is observed comes from what
the loop saw last, so asking costs the backend nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from difflib import get_close_matches

import msgspec

from argosy.api.differences import differences
from argosy.api.log_lines import Place, log_lines
from argosy.api.streams import Streams
from argosy.control.loop import ControlLoop
from argosy.control.running import is_failing
from argosy.control.services import reconcile
from argosy.control.validation import check_service
from argosy.core.control_api import EventChange, ServiceChange
from argosy.core.errors import Conflict, NotFound, Overloaded, Unavailable
from argosy.core.inference_service import InferenceService, InferenceServiceStatus, Revision
from argosy.core.interfaces import Backend, Store
from argosy.core.load_report import GatewayReport
from argosy.core.metadata import Event, Metadata
from argosy.core.routing import RouteTable
from argosy.core.service_views import Plan, ReplicaView, Top, Why
from argosy.core.workload import REVISION_LABEL

_MAX_CONFLICTS = 20
_MAX_GATEWAYS = 64


class ControlPlane:
    """Everything the API answers from. Any number of requests may use it at once, on the loop's event loop."""

    def __init__(self, store: Store, backend: Backend, loop: ControlLoop) -> None:
        self.loop = loop
        self.streams = Streams()
        self._store = store
        self._backend = backend

    def end_watches(self) -> None:
        """End every stream: they never end by themselves."""
        self.streams.end()

    async def services(self) -> tuple[InferenceService, ...]:
        """All, by name. Raises: StoreError."""
        return tuple(await self._store.list(InferenceService))

    async def service(self, name: str) -> InferenceService:
        """Raises: NotFound with the one that may be meant, or those there are; StoreError."""
        try:
            return await self._store.get(InferenceService, name)
        except NotFound as exc:
            names = [each.metadata.name for each in await self._store.list(InferenceService)]
            there_are = ", ".join(names[:10]) + (", …" if len(names) > 10 else "") if names else "none yet"
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"services: {there_are}"
            raise NotFound(f"there is no service {name!r}; {hint}") from exc

    async def apply(self, declared: InferenceService) -> InferenceService:
        """Store what is declared; the loop makes it so. Only a change of the spec by somebody else is a conflict.

        Raises: SpecError, Conflict, StoreError. Cancels: it may have been stored.
        """
        for _ in range(_MAX_CONFLICTS):
            current, given = await self._checked(declared)
            try:
                return await self._store.put(given)
            except Conflict:
                if current is None or given.metadata.resource_version != current.metadata.resource_version:
                    raise
        raise Conflict(f"service {declared.metadata.name!r} is written without end: try again in a moment")

    async def plan(self, declared: InferenceService) -> Plan:
        """What `apply` would store, what would differ, and what the backend would be told next. Changes nothing.

        Raises: SpecError, Conflict, StoreError.
        """
        current, given = await self._checked(declared)
        changes = differences(current, given)
        is_new_spec = current is None or current.spec != given.spec
        metadata = msgspec.structs.replace(given.metadata, generation=given.metadata.generation + is_new_spec)
        planned = msgspec.structs.replace(given, metadata=metadata)
        now = self.loop.clock()
        decision = reconcile(self.loop.world.observed(planned, now), now)
        made = decision.create_revision
        if made is not None:
            changes = (*changes, f"revision {made.short_name} would be made")
        rendered = tuple(self._backend.render(workload) for workload in decision.apply)
        return Plan(service=planned, changes=changes, rendered=rendered)

    async def delete(self, name: str) -> None:
        """Forget a service; the loop ends its replicas. Raises: NotFound, StoreError."""
        await self.service(name)
        await self._store.delete(InferenceService, name)

    async def revisions(self, name: str) -> tuple[Revision, ...]:
        """A service's revisions, the oldest first. Raises: NotFound, StoreError."""
        await self.service(name)
        return await self._revisions(name)

    async def events(self, service: str | None) -> tuple[Event, ...]:
        """What happened, the latest last. Also of services that are gone. Raises: StoreError."""
        found = [each for each in await self._store.list(Event) if service in (None, each.service)]
        return tuple(sorted(found, key=lambda each: (each.last_at, each.metadata.resource_version)))

    async def replicas(self, service: str | None) -> tuple[ReplicaView, ...]:
        """As the loop saw them last. Raises: NotFound."""
        if service is not None:
            await self.service(service)
        return self.loop.outlook.replicas(service)

    async def top(self) -> Top:
        """Load and rates over the last seconds. Raises: BackendError."""
        return await self.loop.outlook.top()

    async def why(self, name: str) -> Why:
        """Why a service is as it is. Raises: NotFound."""
        await self.service(name)
        return await self.loop.outlook.why(name)

    async def logs(self, name: str, *, replica: str | None, revision: str | None, follow: bool) -> AsyncGenerator[str]:
        """The lines of a service's replicas; of those there are now, if followed. Raises: NotFound, before a line."""
        await self.service(name)
        places = self._places(name, replica, revision)
        if not places:
            what = f"replica {replica!r}" if replica else f"replica of {revision}" if revision else "replica"
            raise NotFound(f"service {name!r} has no {what} now: `argosy get {name}` lists those there are")
        return log_lines(self._backend, places, follow=follow)

    async def watch_services(self) -> AsyncGenerator[ServiceChange]:
        """All there is, then every change. Raises: StoreError."""
        async with aclosing(self._store.watch(InferenceService)) as changes:
            async for change in changes:
                yield ServiceChange(resource=change.resource, is_deleted=change.is_deleted)

    async def watch_events(self, service: str | None) -> AsyncGenerator[EventChange]:
        """All there is, then every change, of one service or of all. Raises: StoreError."""
        async with aclosing(self._store.watch(Event)) as changes:
            async for change in changes:
                if service in (None, change.resource.service):
                    yield EventChange(resource=change.resource, is_deleted=change.is_deleted)

    def routes(self) -> RouteTable:
        """What gateways shall know. Raises: Unavailable before the replicas have been seen."""
        table = self.loop.routes()
        if table.version == 0:
            raise Unavailable("the control plane has not seen its replicas yet: ask again", retry_after_seconds=1.0)
        return table

    async def watch_routes(self) -> AsyncGenerator[RouteTable]:
        """The table as soon as there is one, then each newer one; a slow reader misses those in between."""
        version = 0
        while True:
            table = await self.loop.routes_changed(version)
            version = table.version
            yield table

    def record_report(self, gateway: str, report: GatewayReport) -> None:
        """Take a gateway's report. Raises: Overloaded if there are too many gateways."""
        known = self.loop.world.ledger.reports(self.loop.clock())
        if gateway not in known and len(known) >= _MAX_GATEWAYS:
            raise Overloaded(
                f"{len(known)} gateways report, as many as may be: stop one, or give this one the name of one that "
                "has gone",
                retry_after_seconds=10.0,
            )
        self.loop.record_report(gateway, report)

    async def _checked(self, declared: InferenceService) -> tuple[InferenceService | None, InferenceService]:
        """The service as it is, and as it would be put. Raises: SpecError, Conflict, StoreError."""
        name = declared.metadata.name
        services = await self.services()
        check_service(declared, services, await self._revisions(name))
        current = next((each for each in services if each.metadata.name == name), None)
        return current, _based_on(current, declared)

    async def _revisions(self, name: str) -> tuple[Revision, ...]:
        found = [each for each in await self._store.list(Revision) if each.spec.service == name]
        return tuple(sorted(found, key=lambda each: each.spec.number))

    def _places(self, service: str, replica: str | None, revision: str | None) -> list[Place]:
        """Where the logs of the chosen replicas are: first those that fail now, then those that failed before."""
        chosen = [
            (each, (status.name, each.name))
            for status in self.loop.world.statuses_of(service)
            for each in status.replicas
            if replica in (None, each.name) and revision in (None, status.labels.get(REVISION_LABEL))
        ]
        chosen.sort(key=lambda row: (not is_failing(row[0]), -row[0].restarts))
        return [place for _, place in chosen]


def _based_on(current: InferenceService | None, declared: InferenceService) -> InferenceService:
    """What to put: the declaration, on the version it may replace.

    Without a version it replaces whatever is there. With one, it replaces what differs from that in its status only:
    the loop writes that all the time. Else it keeps its own version, and the store says that it is outdated.
    """
    given = declared.metadata
    if current is None:
        metadata = Metadata(name=given.name, resource_version=given.resource_version, labels=given.labels)
        return InferenceService(metadata=metadata, spec=declared.spec, status=InferenceServiceStatus())
    is_same_spec = (given.uid, given.generation) == (current.metadata.uid, current.metadata.generation)
    version = (
        current.metadata.resource_version if not given.resource_version or is_same_spec else given.resource_version
    )
    metadata = msgspec.structs.replace(current.metadata, resource_version=version, labels=given.labels)
    return msgspec.structs.replace(current, metadata=metadata, spec=declared.spec)
