"""A small cloud to measure: `argosy up` of this checkout on free ports, with a state directory of its own."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec

from argosy.client.control_client import ControlClient, open_client
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceSpec,
    RevisionTemplate,
    ServicePhase,
)
from argosy.core.metadata import Metadata
from argosy.core.scaling import ScalingPolicy
from argosy.core.service_views import ReplicaView
from argosy.core.workload import ReplicaPhase
from benchmarks.servers import Server, free_port

_READY_SECONDS = 300.0
_LOOK_SECONDS = 0.05


def fixed(replicas: int) -> ScalingPolicy:
    """Always so many."""
    return ScalingPolicy(min_replicas=replicas, max_replicas=replicas)


class Cloud(msgspec.Struct, frozen=True, kw_only=True):
    """A running cloud: the gateway's URL, a client of the control plane, its process and its state directory."""

    gateway_url: str
    client: ControlClient
    server: Server
    state: Path

    async def deploy(self, name: str, model: str, *, replicas: int = 1, warm_spares: int = 0) -> None:
        """Declare a service with a fixed number of replicas, and wait until it is ready. Raises: RuntimeError."""
        spec = InferenceServiceSpec(
            template=RevisionTemplate(model=model), scaling=fixed(replicas), warm_spares=warm_spares
        )
        await self.declare(name, spec)

    async def declare(self, name: str, spec: InferenceServiceSpec) -> None:
        """Declare a service, and wait until it is ready. Raises: RuntimeError."""
        await self.client.apply(InferenceService(metadata=Metadata(name=name), spec=spec))
        async with aclosing(self.client.wait_ready(name, timeout_seconds=_READY_SECONDS)) as states:
            phases = [service.status.phase async for service in states]
        if phases[-1] is not ServicePhase.READY:
            raise RuntimeError(f"{name} is {phases[-1].value}: see {self.state / 'logs'}")

    async def scale(self, name: str, replicas: int, *, warm_spares: int | None = None) -> None:
        """Change the number of replicas; returns when it is declared, not when it is so."""

        def scaled(spec: InferenceServiceSpec) -> InferenceServiceSpec:
            spares = spec.warm_spares if warm_spares is None else warm_spares
            return msgspec.structs.replace(spec, scaling=fixed(replicas), warm_spares=spares)

        await self.client.modify(name, scaled)

    async def settled(self, name: str, replicas: int, spares: int) -> list[ReplicaView]:
        """The replicas, once exactly so many are ready, and nothing else runs. Raises: TimeoutError."""
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                views = await self.client.replicas(name)
                ready = [view for view in views if view.status.phase is ReplicaPhase.READY]
                num_spares = sum(view.status.is_spare for view in ready)
                if len(views) == len(ready) == replicas + spares and num_spares == spares:
                    return views
                await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def cloud(*options: str) -> AsyncIterator[Cloud]:
    """A cloud with nothing deployed; everything of it is ended and removed on exit."""
    state = Path(tempfile.mkdtemp(prefix="argosy-bench-"))
    gateway, control = free_port(), free_port()
    argv = [sys.executable, "-m", "argosy.cli.main", "up", "--state", str(state), "--port", str(gateway)]
    argv += ["--control-port", str(control), *options]
    try:
        with Server("up", argv, gateway, ready_path="/readyz") as server:
            async with open_client(state) as client:
                yield Cloud(gateway_url=server.url, client=client, server=server, state=state)
    finally:
        shutil.rmtree(state, ignore_errors=True)
