"""A whole cloud on a virtual clock, with chance for weather: real loop, gateway and rules; rows for replicas.

Real: ControlLoop, Gateway (edge, relay, dispatch, polls, reports, hold, retries, ejection), MemoryStore, FakeBackend.
Modelled: replicas (`sim_replicas.py`) and clients (`sim_clients.py`), which call the gateway as uvicorn would.
Every draw comes from one seed, so a run that fails can be run again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import suppress

import msgspec
from sim_clients import Clients
from sim_replicas import Replicas

from argosy.backends.fake import FakeBackend
from argosy.control.loop import ControlLoop
from argosy.control.settings import ControlSettings
from argosy.core.control_spec import GatewaySpec
from argosy.core.errors import BackendError, Conflict, NotFound
from argosy.core.inference_service import (
    GatewayPolicy,
    InferenceService,
    InferenceServiceSpec,
    RevisionTemplate,
)
from argosy.core.load_report import GatewayReport
from argosy.core.metadata import Metadata
from argosy.core.routing import RouteTable
from argosy.core.scaling import ScalingPolicy
from argosy.core.workload import ReplicaPhase, WorkloadStatus
from argosy.gateway.app import Gateway
from argosy.observe.metrics import Metrics
from argosy.stores.memory import MemoryStore

EPOCH = 1_700_000_000.0
ANSWER_SECONDS = 8.0  # No answer of a modelled replica takes longer.
DRAIN_SECONDS = 20.0


class World:
    """Everything, and the levers that break it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loop = asyncio.get_running_loop()
        self.store = MemoryStore(self.now)
        self.backend = FakeBackend(self.now)
        self.backend.start_seconds = lambda workload: self.random.uniform(0.5, 4.0)
        self.backend.drain_seconds = DRAIN_SECONDS
        self.replicas = Replicas(self.random, self.phase_of)
        self.clients = Clients(self.loop.time)
        self.statuses: dict[str, WorkloadStatus] = {}
        self.is_cut_off = False
        self._broken = asyncio.Event()  # replaced with each break: who watches hears of it
        self.control: ControlLoop | None = None
        self.gateway: Gateway | None = None
        self._control_task: asyncio.Task[None] | None = None
        self._gateway_task: asyncio.Task[None] | None = None

    def now(self) -> float:
        """Unix seconds."""
        return EPOCH + self.loop.time()

    async def start(self) -> None:
        await self.start_control()
        await self.start_gateway()

    async def stop(self) -> None:
        await self.clients.finish()
        await self.kill_gateway()
        await self.kill_control()

    async def start_control(self) -> None:
        """A new control plane on the store and the replicas of the last one."""
        self.control = ControlLoop(self.store, self.backend, ControlSettings(program=("argosy",)), self.now)
        self._control_task = asyncio.create_task(self.control.run())

    async def kill_control(self) -> None:
        self._break()
        task, self._control_task, self.control = self._control_task, None, None
        await _killed(task)

    def cut_off(self) -> None:
        """The gateway and the control plane cannot reach each other, until `is_cut_off` is False again."""
        self.is_cut_off = True
        self._break()

    def _break(self) -> None:
        self._broken.set()
        self._broken = asyncio.Event()

    async def start_gateway(self) -> None:
        """A new gateway: no routes, no memory."""
        self.gateway = Gateway(
            GatewaySpec(insecure=True), self.replicas, Metrics(), clock=self.loop.time, draw=self.random.random
        )
        self._gateway_task = asyncio.create_task(self.gateway.run(self))
        self.clients.gateway = self.gateway

    async def kill_gateway(self) -> None:
        """Its clients' connections break with it."""
        task, self._gateway_task, self.gateway = self._gateway_task, None, None
        self.clients.gateway = None
        await self.clients.lose_connections()
        await _killed(task)

    # The gateway's link to the control plane.

    async def routes(self) -> AsyncGenerator[RouteTable]:
        version = 0
        while True:
            asked = asyncio.ensure_future(self._reached().routes_changed(version))
            breaks = self._broken
            broken = asyncio.ensure_future(breaks.wait())
            try:
                await asyncio.wait((asked, broken), return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                broken.cancel()
            if breaks.is_set() or not asked.done():
                raise BackendError("the connection to the control plane broke")
            table = asked.result()
            version = table.version
            yield table

    async def report(self, report: GatewayReport) -> None:
        self._reached().record_report("gateway", report)

    def _reached(self) -> ControlLoop:
        if self.control is None or self.is_cut_off:
            raise BackendError("no control plane answers")
        return self.control

    # What users declare.

    async def declare(self, name: str, model: str, least: int, most: int, **fields: object) -> None:
        """Deploy, or change; again if the loop wrote in between."""
        scaling = ScalingPolicy(min_replicas=least, max_replicas=most, scale_to_zero_after_seconds=15.0,
                                scale_down_stabilization_seconds=10.0)  # fmt: skip
        spec = InferenceServiceSpec(
            template=RevisionTemplate(model=model),
            scaling=scaling,
            gateway=GatewayPolicy(hold_seconds=30.0, deadline_seconds=60.0),
            **fields,  # type: ignore[arg-type]
        )
        while True:
            try:
                stored = await self.store.get(InferenceService, name)
                metadata = stored.metadata
            except NotFound:
                metadata = Metadata(name=name)
            with suppress(Conflict):
                await self.store.put(InferenceService(metadata=metadata, spec=spec))
                return

    async def delete(self, name: str) -> None:
        with suppress(NotFound):
            await self.store.delete(InferenceService, name)

    # What is.

    async def look(self) -> list[WorkloadStatus]:
        """The backend as it is, past any fault that was planted for the control plane."""
        faults, self.backend.faults = self.backend.faults, type(self.backend.faults)()
        found = await self.backend.list()
        self.backend.faults = faults
        self.statuses = {replica.name: status for status in found for replica in status.replicas}
        return found

    def phase_of(self, address: str) -> ReplicaPhase | None:
        """The phase of the replica that listens at an address; None if nobody does."""
        self.backend.advance()
        for rows in self.backend._replicas.values():
            for row in rows.values():
                if row.status.address == address:
                    return row.status.phase
        return None

    def any_replica(self) -> tuple[str, str] | None:
        """Workload and name of some replica that is starting or ready."""
        alive = (ReplicaPhase.READY, ReplicaPhase.STARTING)
        rows = [
            (workload, name)
            for workload, rows in self.backend._replicas.items()
            for name, row in rows.items()
            if row.status.phase in alive
        ]
        return self.random.choice(sorted(rows)) if rows else None

    def crash_any(self) -> None:
        """kill -9 of some replica."""
        if chosen := self.any_replica():
            workload, name = chosen
            self.backend.crash(workload, name)
            self.replicas.died(f"{name}:80")


async def _killed(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


def fields_of(status: object) -> dict[str, object]:
    """For messages of failed assertions."""
    return dict(msgspec.to_builtins(status))
