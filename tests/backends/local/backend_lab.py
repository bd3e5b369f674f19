"""A local backend over stand-in servers, and the ways to look at what it runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from argosy.backends import BackendSpec
from argosy.backends.local.backend import LocalBackend
from argosy.backends.local.opening import open_local
from argosy.backends.local.probe import ask
from argosy.backends.local.processes import token_bearers
from argosy.backends.local.settings import LocalSettings
from argosy.core.workload import Probe, ReplicaPhase, ReplicaStatus, Workload, WorkloadStatus

STAND_IN = Path(__file__).parent.parent / "stand_in.py"
SECONDS = 20.0
READY = Probe(path="/readyz", period_seconds=0.05)
LIVE = Probe(path="/livez", period_seconds=0.1, timeout_seconds=0.4)


class Lab:
    """One directory with a backend that may be closed and opened again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spec = BackendSpec(root=root / "backend", logs=root / "logs")
        self.now = 1_000_000.0
        self._stack = AsyncExitStack()
        self._backend: LocalBackend | None = None

    @property
    def backend(self) -> LocalBackend:
        assert self._backend is not None
        return self._backend

    async def open(self, **changes: object) -> None:
        self.spec = msgspec.structs.replace(self.spec, **changes)
        opened = open_local(self.spec, settings=LocalSettings(farewell_seconds=0.0), clock=lambda: self.now)
        self._backend = await self._stack.enter_async_context(opened)

    async def close(self) -> None:
        await self._stack.aclose()
        self._backend = None

    async def apply(self, *more: str, replicas: int = 1, **fields: object) -> None:
        await self.backend.apply(self.workload(*more, replicas=replicas, **fields))

    def workload(self, *more: str, **fields: object) -> Workload:
        argv = (sys.executable, "-I", "-S", str(STAND_IN), "--host", "$(HOST)", "--port", "$(PORT)", *more)
        plain = Workload(name="w", argv=argv, readiness=READY, liveness=LIVE, shutdown_grace_seconds=5.0)
        return msgspec.structs.replace(plain, **fields)

    async def until(self, is_so: Callable[[WorkloadStatus], object]) -> WorkloadStatus:
        async with asyncio.timeout(SECONDS):
            while True:
                for status in await self.backend.list():
                    if is_so(status):
                        return status
                await self.backend.changed()

    async def ready(self, count: int = 1) -> list[ReplicaStatus]:
        status = await self.until(
            lambda each: [replica.phase for replica in each.replicas] == [ReplicaPhase.READY] * count
        )
        return list(status.replicas)

    async def eventually(self, is_so: Callable[[], object]) -> None:
        """Wait for what the backend does not announce."""
        async with asyncio.timeout(SECONDS):
            while not is_so():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def gone(self) -> None:
        async with asyncio.timeout(SECONDS):
            while await self.backend.list():
                await self.backend.changed()

    def processes(self) -> set[int]:
        """Every living process that carries a token of this directory."""
        identity = (self.spec.root / "identity").read_text()
        return {each.identity.pid for each in token_bearers(f"{identity}/")}


async def told(replica: ReplicaStatus, path: str) -> str:
    """What the stand-in answers."""
    assert replica.address is not None
    host, _, port = replica.address.rpartition(":")
    answer = await ask((host, int(port)), path, 5.0)
    return "" if answer is None else answer.body.decode()


@asynccontextmanager
async def laboratory(root: Path) -> AsyncIterator[Lab]:
    lab = Lab(root)
    await lab.open()
    try:
        yield lab
    finally:
        await lab.close()
        await lab.open(stop_replicas=True, devices=None)
        for status in await lab.backend.list():
            await lab.backend.apply(msgspec.structs.replace(lab.workload(), name=status.name, replicas=0))
            await lab.backend.delete(status.name)
        await lab.close()
        await lab.eventually(lambda: not lab.processes())
