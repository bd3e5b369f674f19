"""What runs the replicas refuses, fails, hangs, or does what was asked and fails to say so (F-22)."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest
from tests.control.conftest import Stage

from argosy.control.loop import ControlLoop
from argosy.core.errors import BackendError, Conflict
from argosy.core.workload import ReplicaPhase, Workload, WorkloadStatus

pytestmark = pytest.mark.anyio


class Flaky:
    """The stage's backend, of whose calls a share fails: before they do anything, or only in the answer."""

    def __init__(self, stage: Stage, ratio: float, seed: int = 0) -> None:
        self.inner, self.ratio, self.random, self.changes = stage.backend, ratio, random.Random(seed), 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def list(self) -> list[WorkloadStatus]:
        self._fail()
        return await self.inner.list()

    async def apply(self, workload: Workload) -> None:
        self.changes += 1
        self._fail()
        await self.inner.apply(workload)
        self._fail()

    async def delete(self, name: str) -> None:
        self.changes += 1
        self._fail()
        await self.inner.delete(name)
        self._fail()

    def _fail(self) -> None:
        if self.random.random() < self.ratio:
            raise self.random.choice((BackendError("503: ask again"), Conflict("409: it changed"), OSError("reset")))


def flaky(stage: Stage, ratio: float, seed: int = 0) -> Flaky:
    """Puts it between the loop and the stage's backend."""
    found = Flaky(stage, ratio, seed)
    stage.loop = ControlLoop(stage.store, found, stage.loop.settings, clock=stage.clock)  # type: ignore[arg-type]
    return found


async def test_f22_while_what_runs_cannot_be_listed_nothing_changes(stage: Stage) -> None:
    backend = flaky(stage, 0.0)
    await stage.declare(replicas=3)
    await stage.run(3)
    routes, changes = stage.loop.routes(), backend.changes
    backend.ratio = 1.0
    await stage.change(replicas=1, model="two")
    await stage.run(30)
    assert (stage.loop.routes(), backend.changes) == (routes, changes)
    assert stage.loop.world.trouble
    backend.ratio = 0.0
    await stage.run(15)
    assert await stage.replicas(ReplicaPhase.READY) == {"chat-v2": 1}
    assert stage.loop.world.trouble == ""


@pytest.mark.parametrize("seed", range(8))
async def test_f22_whichever_calls_fail_there_are_no_doubles_and_all_settles(stage: Stage, seed: int) -> None:
    """Each call fails in four of ten cases, half of them after it was carried out; the control plane restarts too."""
    backend = flaky(stage, 0.4, seed)
    await stage.declare(replicas=2)
    for number in range(12):
        await stage.run(2.5)
        most = sum((await stage.replicas()).values())
        assert most <= 4 + 1  # desired, and max_surge
        if number % 3 == 2:
            await stage.change(replicas=1 + backend.random.randrange(4), model=f"model-{number}")
        if number % 5 == 4:
            stage.loop = ControlLoop(stage.store, backend, stage.loop.settings, clock=stage.clock)  # type: ignore[arg-type]
    await stage.change(replicas=2, model="last")
    backend.ratio = 0.0
    await stage.run(60)
    newest = max((await stage.status()).revisions, key=lambda each: int(each.revision[1:])).revision
    assert await stage.replicas(ReplicaPhase.READY) == {f"chat-{newest}": 2}
    assert await stage.replicas() == {f"chat-{newest}": 2}
    assert stage.weights() == {newest: 100}


async def test_f22_what_fails_is_asked_again_with_growing_pauses(stage: Stage) -> None:
    backend = flaky(stage, 0.0)
    await stage.declare()
    await stage.run(3)
    backend.inner.faults.clear()
    before = backend.changes
    refusing = Refusing(backend)
    stage.loop = ControlLoop(stage.store, refusing, stage.loop.settings, clock=stage.clock)  # type: ignore[arg-type]
    await stage.change(replicas=2)
    await stage.run(120)
    assert backend.changes == before
    assert 4 <= refusing.refused <= 20
    assert await stage.replicas(ReplicaPhase.READY) == {"chat-v1": 1}


async def test_f22_a_call_that_never_returns_has_an_end(stage: Stage) -> None:
    settings = msgspec.structs.replace(stage.loop.settings, call_seconds=0.01)
    stage.loop = ControlLoop(stage.store, Hung(), settings, clock=stage.clock)  # type: ignore[arg-type]
    await stage.declare()
    async with asyncio.timeout(5):
        await stage.loop.look()
    assert stage.loop.world.trouble == "TimeoutError"


class Refusing:
    """A backend that lists, and refuses every change."""

    def __init__(self, inner: Flaky) -> None:
        self.inner, self.refused = inner, 0

    async def list(self) -> list[WorkloadStatus]:
        return await self.inner.list()

    async def apply(self, workload: Workload) -> None:
        self.refused += 1
        raise BackendError(f"429: not {workload.name} now")

    async def delete(self, name: str) -> None:
        self.refused += 1
        raise BackendError(f"429: not {name} now")


class Hung:
    """A backend whose answers never come."""

    async def list(self) -> list[WorkloadStatus]:
        await asyncio.Event().wait()
        raise AssertionError
