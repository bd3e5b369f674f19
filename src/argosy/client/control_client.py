"""The control plane as an object: one method per thing that can be asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import msgspec

from argosy.client.channel import Channel, ticking
from argosy.core.control_api import EventChange, EventList, ReplicaList, RevisionList, ServiceChange, ServiceList
from argosy.core.control_spec import DEFAULT_CONTROL_URL
from argosy.core.environment import read_environment
from argosy.core.errors import BackendError, Conflict, DeadlineExceeded, Unavailable
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceSpec,
    Revision,
    RolloutPhase,
    ServicePhase,
)
from argosy.core.interfaces import Change
from argosy.core.load_report import GATEWAY_REPORT_PATH, GatewayReport
from argosy.core.metadata import Event
from argosy.core.routing import RouteTable
from argosy.core.service_views import Plan, ReplicaView, Top, Why
from argosy.core.state_dir import ControlAddress, StateDir, default_state_dir

_SERVICES = "/v1/inferenceservices"
_MAX_CONFLICTS = 20
_RECONNECT_SECONDS = 0.2
_LOOK_SECONDS = 1.0
_MOVING = frozenset({RolloutPhase.PROGRESSING, RolloutPhase.PROMOTING})


class ControlClient:
    """`async with ControlClient(url, key) as client:`. Every method raises the ArgosyError that the server raised,
    DeadlineExceeded when it takes longer than `timeout_seconds`, and BackendError when nobody answers.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout_seconds: float = 30.0) -> None:
        self._channel = Channel(url, key, timeout_seconds)

    @property
    def url(self) -> str:
        """Where the control plane is."""
        return self._channel.url

    async def __aenter__(self) -> Self:
        """Nothing is sent yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._channel.close()

    async def services(self) -> list[InferenceService]:
        """All services, by name."""
        return [*(await self._channel.call("GET", _SERVICES, ServiceList)).items]

    async def service(self, name: str) -> InferenceService:
        """Raises: NotFound."""
        return await self._channel.call("GET", _of(name), InferenceService)

    async def apply(self, service: InferenceService) -> InferenceService:
        """Declare a service: made if there is none of that name, else changed. Returns at once, before it runs.

        With a resource_version, as one that was read has, it is changed only if nobody else has changed it since;
        without one, what is declared here rules. Raises: SpecError, Conflict.
        """
        return await self._channel.call("PUT", _of(service.metadata.name), InferenceService, body=service)

    async def plan(self, service: InferenceService) -> Plan:
        """What `apply` would store, what would change, and exactly what the backend would run. Changes nothing."""
        return await self._channel.call("POST", f"{_of(service.metadata.name)}/plan", Plan, body=service)

    async def modify(
        self, name: str, change: Callable[[InferenceServiceSpec], InferenceServiceSpec]
    ) -> InferenceService:
        """Read a spec, change it, write it back; again from the start if somebody else was faster.

        change: a pure function of the spec as it is. Raises: NotFound, SpecError; Conflict if others never rest.
        """
        for _ in range(_MAX_CONFLICTS - 1):
            try:
                return await self._changed(name, change)
            except Conflict:
                continue
        return await self._changed(name, change)

    async def _changed(
        self, name: str, change: Callable[[InferenceServiceSpec], InferenceServiceSpec]
    ) -> InferenceService:
        current = await self.service(name)
        return await self.apply(msgspec.structs.replace(current, spec=change(current.spec)))

    async def delete(self, name: str) -> None:
        """Its replicas drain and end. Raises: NotFound."""
        await self._channel.call("DELETE", _of(name), type(None))

    async def revisions(self, name: str) -> list[Revision]:
        """A service's revisions, the oldest first. Raises: NotFound."""
        return [*(await self._channel.call("GET", f"{_of(name)}/revisions", RevisionList)).items]

    async def replicas(self, name: str | None = None) -> list[ReplicaView]:
        """The replicas of one service, or of all. Raises: NotFound."""
        found = await self._channel.call("GET", "/v1/replicas", ReplicaList, query=_given(service=name))
        return [*found.items]

    async def events(self, service: str | None = None) -> list[Event]:
        """What has happened to one service, or to all; the latest last."""
        return [*(await self._channel.call("GET", "/v1/events", EventList, query=_given(service=service))).items]

    async def why(self, name: str) -> Why:
        """Why a service is as it is, in sentences. Raises: NotFound."""
        return await self._channel.call("GET", f"{_of(name)}/why", Why)

    async def top(self) -> Top:
        """Load and rates over the last seconds."""
        return await self._channel.call("GET", "/v1/top", Top)

    async def watch_services(self) -> AsyncGenerator[Change[InferenceService]]:
        """All services, then every change. Cancels: stops watching.

        Raises: BackendError when the connection is lost: what was deleted meanwhile is then not told, so begin anew.
        """
        async with aclosing(self._channel.events(_SERVICES, ServiceChange, {"watch": "true"})) as changes:
            async for change in changes:
                yield Change(resource=change.resource, is_deleted=change.is_deleted)

    async def watch_events(self, service: str | None = None) -> AsyncGenerator[Change[Event]]:
        """All events, then every new one, of one service or of all. Cancels: stops watching."""
        query = {"watch": "true", **_given(service=service)}
        async with aclosing(self._channel.events("/v1/events", EventChange, query)) as changes:
            async for change in changes:
                yield Change(resource=change.resource, is_deleted=change.is_deleted)

    async def wait_ready(self, name: str, *, timeout_seconds: float) -> AsyncGenerator[InferenceService]:
        """The service now and after each change of its status, until it is ready, idle or failed, or has rolled back.

        The last one yielded says which. A control plane that goes away meanwhile is waited for.
        Cancels: stops waiting. Raises: NotFound if there is none, or it is deleted; DeadlineExceeded.
        """
        end = asyncio.get_running_loop().time() + timeout_seconds
        last: InferenceService | None = None
        while True:
            try:
                async with aclosing(self._states(name, end)) as states:
                    async for service in states:
                        if last is None or service.status != last.status:
                            yield service
                        last = service
                        if is_settled(service):
                            return
            except (BackendError, Unavailable):
                if last is None:
                    raise
            except TimeoutError as exc:
                phase = last.status.phase.value if last else "unknown"
                raise DeadlineExceeded(
                    f"service {name!r} is {phase}, and not ready after {timeout_seconds:g} s: wait longer, or look why"
                ) from exc
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _states(self, name: str, end: float) -> AsyncGenerator[InferenceService]:
        """A service now and after each change. Raises: NotFound when it is gone; TimeoutError at `end`."""
        async with asyncio.timeout_at(end):
            first = await self.service(name)
        yield first
        async with aclosing(ticking(self.watch_services(), _LOOK_SECONDS)) as changes:
            while True:
                async with asyncio.timeout_at(end):
                    try:
                        change = await anext(changes)
                    except StopAsyncIteration:
                        return
                    # One that was deleted before the watch began is in none of its changes, so it is asked for.
                    if change is None or (change.is_deleted and change.resource.metadata.name == name):
                        found = await self.service(name)
                    else:
                        found = change.resource
                if found.metadata.name == name:
                    yield found

    async def logs(
        self, service: str, *, replica: str | None = None, follow: bool = False, revision: str | None = None
    ) -> AsyncGenerator[str]:
        """Log lines of a service's replicas, oldest first; with several replicas each line begins with its name.

        Cancels: stops following. Raises: NotFound.
        """
        query = {"follow": "true"} if follow else {}
        query |= _given(replica=replica, revision=revision)
        async with aclosing(self._channel.lines(f"{_of(service)}/logs", query)) as lines:
            async for line in lines:
                yield line

    async def watch_routes(self) -> AsyncGenerator[RouteTable]:
        """The route table, then each newer one. Cancels: stops watching. Raises: BackendError when it is lost."""
        async with aclosing(self._channel.events("/v1/routes", RouteTable, {"watch": "true"})) as tables:
            async for table in tables:
                yield table

    async def send_report(self, name: str, report: GatewayReport) -> None:
        """Tell the control plane how a gateway is."""
        path = GATEWAY_REPORT_PATH.replace("{name}", quote(name, safe=""))
        await self._channel.call("POST", path, type(None), body=report)


def is_settled(service: InferenceService) -> bool:
    """Whether the spec as it is now has come to an end, good or bad: nothing more will change by itself soon."""
    status = service.status
    if status.observed_generation < service.metadata.generation:
        return False
    if status.phase is ServicePhase.FAILED or status.rollout.phase is RolloutPhase.ROLLED_BACK:
        return True
    return status.phase in (ServicePhase.READY, ServicePhase.IDLE) and status.rollout.phase not in _MOVING


def open_client(state: Path | None = None, url: str | None = None) -> ControlClient:
    """A client of the control plane whose state lies in `state` (None = the user's own), or of the one at `url`.

    The key is ARGOSY_API_KEY's, else the one in the state directory, which only control planes of this machine are
    shown. Raises: BackendError if no control plane was ever started there.
    """
    where = default_state_dir() if state is None else StateDir(state)
    found = url or _address(where)
    key = read_environment().api_key
    if key is None and (url is None or _is_near(found)):
        key = _read(where.admin_key)
    return ControlClient(found, key)


def _address(state: StateDir) -> str:
    """The URL that a running control plane has left."""
    said = _read(state.control_file)
    if said is None:
        raise BackendError(
            f"no control plane runs on {state.root}: start one with `argosy up`, or name one with --control "
            f"(such as {DEFAULT_CONTROL_URL})"
        )
    try:
        return msgspec.json.decode(said, type=ControlAddress).url
    except msgspec.DecodeError as exc:
        raise BackendError(
            f"{state.control_file} is damaged ({exc}): start the control plane again with `argosy up`", retryable=False
        ) from exc


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _is_near(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def _of(service: str) -> str:
    return f"{_SERVICES}/{quote(service, safe='')}"


def _given(**values: str | None) -> Mapping[str, str]:
    return {name: value for name, value in values.items() if value is not None}
