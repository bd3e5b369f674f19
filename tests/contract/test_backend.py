"""The laws of the Backend socket, the same for every backend: on real processes and on the fake's clock."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from argosy.backends import BACKENDS, BackendSpec
from argosy.backends.fake import FakeBackend
from argosy.backends.local.opening import open_local
from argosy.backends.local.settings import LocalSettings
from argosy.core.errors import NotFound
from argosy.core.interfaces import Backend
from argosy.core.workload import Probe, ReplicaPhase, ReplicaStatus, Workload, WorkloadStatus

pytestmark = pytest.mark.anyio

STAND_IN = Path(__file__).parent.parent / "backends" / "stand_in.py"
SECONDS = 20.0
QUICK = Probe(path="/readyz", period_seconds=0.05)

Statuses = Sequence[WorkloadStatus]


class World:
    """One backend and its time."""

    backend: Backend

    def workload(self, replicas: int = 1, *more: str, name: str = "chat-v1", **fields: int) -> Workload:
        argv = (sys.executable, "-I", "-S", str(STAND_IN), "--port", "$(PORT)", *more)
        return Workload(
            name=name, argv=argv, replicas=replicas, readiness=QUICK, labels={"argosy/service": "chat"}, **fields
        )

    async def pass_time(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await self.backend.changed()

    async def crash(self, replica: ReplicaStatus) -> None:
        raise NotImplementedError

    async def reopen(self) -> None:
        raise NotImplementedError

    async def until(self, is_so: Callable[[Statuses], object]) -> Statuses:
        async with asyncio.timeout(SECONDS):
            while not is_so(statuses := await self.backend.list()):
                await self.pass_time()
            return statuses

    async def until_ready(self, count: int) -> tuple[ReplicaStatus, ...]:
        (status,) = await self.until(lambda each: len(ready(each)) == count and len(replicas(each)) == count)
        return status.replicas


class FakeWorld(World):
    def __init__(self) -> None:
        self.now = 1000.0
        self.backend = self.fake = FakeBackend(lambda: self.now)

    def workload(self, replicas: int = 1, *more: str, name: str = "chat-v1", **fields: int) -> Workload:
        if "--fail" in more:
            self.fake.failing.add(name)
        return super().workload(replicas, *more, name=name, **fields)

    async def pass_time(self) -> None:
        await asyncio.sleep(0)
        self.now += 0.25

    async def crash(self, replica: ReplicaStatus) -> None:
        self.fake.crash("chat-v1", replica.name)


class LocalWorld(World):
    def __init__(self, root: Path, stack: AsyncExitStack) -> None:
        self._spec = BackendSpec(root=root / "backend", logs=root / "logs")
        self._stack = stack

    async def open(self) -> None:
        settings = LocalSettings(farewell_seconds=0.0)
        self.backend = await self._stack.enter_async_context(open_local(self._spec, settings=settings))

    async def crash(self, replica: ReplicaStatus) -> None:
        assert replica.process_id is not None
        import os
        import signal

        os.kill(replica.process_id, signal.SIGKILL)

    async def reopen(self) -> None:
        await self._stack.aclose()
        await self.open()


@asynccontextmanager
async def local_world(root: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        world = LocalWorld(root, stack)
        await world.open()
        yield world
        await world.backend.delete("chat-v1")
        await world.backend.delete("other-v1")
        await world.until(lambda statuses: not statuses)


@pytest.fixture(params=BACKENDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    async with local_world(tmp_path) as opened:
        yield opened


def replicas(statuses: Statuses) -> list[ReplicaStatus]:
    return [replica for status in statuses for replica in status.replicas]


def ready(statuses: Statuses) -> list[ReplicaStatus]:
    return [each for each in replicas(statuses) if each.phase is ReplicaPhase.READY]


def names(some: Sequence[ReplicaStatus]) -> set[str]:
    return {each.name for each in some}


async def test_a_workload_becomes_ready_replicas_with_addresses_and_labels(world: World) -> None:
    await world.backend.apply(world.workload(2))
    (status,) = await world.until(lambda each: len(ready(each)) == 2)
    assert (status.name, status.desired_replicas, status.labels) == ("chat-v1", 2, {"argosy/service": "chat"})
    assert len({each.address for each in status.replicas}) == 2
    assert all(each.name.startswith("chat-v1-") and each.ready_at and each.started_at for each in status.replicas)
    assert status.ready() == status.replicas


async def test_doing_it_twice_is_doing_it_once(world: World) -> None:
    await world.backend.apply(world.workload(1))
    await world.backend.apply(world.workload(1))
    first = await world.until_ready(1)
    await world.backend.apply(world.workload(1))
    await world.pass_time()
    assert names(replicas(await world.backend.list())) == names(first)


async def test_it_grows_and_shrinks_and_the_youngest_goes(world: World) -> None:
    await world.backend.apply(world.workload(1))
    (oldest,) = await world.until_ready(1)
    await world.backend.apply(world.workload(3))
    assert oldest.name in names(await world.until_ready(3))
    await world.backend.apply(world.workload(1))
    (left,) = await world.until_ready(1)
    assert left.name == oldest.name


async def test_what_is_not_ready_goes_before_what_is(world: World) -> None:
    await world.backend.apply(world.workload(1))
    (steady,) = await world.until_ready(1)
    await world.backend.apply(world.workload(2))
    await world.backend.apply(world.workload(1))
    (left,) = await world.until_ready(1)
    assert left.name == steady.name


async def test_draining_replicas_are_listed_until_they_are_gone(world: World) -> None:
    await world.backend.apply(world.workload(1, "--drain", "0.2"))
    await world.until_ready(1)
    await world.backend.delete("chat-v1")
    (status,) = await world.backend.list()
    assert status.desired_replicas == 0
    await world.until(lambda each: not each or replicas(each)[0].phase is ReplicaPhase.DRAINING)
    await world.until(lambda statuses: not statuses)


async def test_deleting_what_is_not_there_is_success(world: World) -> None:
    await world.backend.delete("never-was")
    assert await world.backend.list() == []


async def test_zero_replicas_is_a_workload_still(world: World) -> None:
    await world.backend.apply(world.workload(0))
    (status,) = await world.backend.list()
    assert (status.replicas, status.desired_replicas) == ((), 0)


async def test_a_ready_spare_becomes_a_replica_at_once_and_another_follows(world: World) -> None:
    await world.backend.apply(world.workload(1, warm_spares=1))
    before = await world.until_ready(2)
    (spare,) = [each for each in before if each.is_spare]
    await world.backend.apply(world.workload(2, warm_spares=1))
    (status,) = await world.backend.list()
    assert names(status.ready()) == names(before)
    after = await world.until_ready(3)
    (new_spare,) = [each for each in after if each.is_spare]
    assert new_spare.name not in names(before)
    assert spare.name in names(after)


async def test_a_spare_stands_in_for_a_crashed_replica(world: World) -> None:
    await world.backend.apply(world.workload(1, warm_spares=1))
    before = await world.until_ready(2)
    (active,) = [each for each in before if not each.is_spare]
    (spare,) = [each for each in before if each.is_spare]
    await world.crash(active)
    await world.until(lambda each: names(each[0].ready()) == {spare.name})


async def test_a_crashed_replica_starts_again_under_its_name(world: World) -> None:
    await world.backend.apply(world.workload(1))
    (before,) = await world.until_ready(1)
    await world.crash(before)
    (status,) = await world.until(lambda each: replicas(each)[0].restarts == 1 and ready(each))
    (after,) = status.replicas
    assert (after.name, after.last_exit_code) == (before.name, -9)


async def test_a_replica_that_cannot_run_ends_in_a_crash_loop_and_its_log_says_why(world: World) -> None:
    await world.backend.apply(world.workload(1, "--fail", "3"))
    statuses = await world.until(lambda each: replicas(each)[0].reason == "CrashLoop")
    (replica,) = replicas(statuses)
    assert replica.phase is ReplicaPhase.BACKOFF
    assert replica.message
    assert replica.restarts >= 3
    async with aclosing(world.backend.logs("chat-v1", replica.name, follow=False)) as lines:
        assert [line async for line in lines]


async def test_logs_of_nobody_are_not_found(world: World) -> None:
    async with aclosing(world.backend.logs("chat-v1", "chat-v1-00000", follow=False)) as lines:
        with pytest.raises(NotFound):
            await anext(lines)


async def test_following_a_log_ends_with_its_replica(world: World) -> None:
    await world.backend.apply(world.workload(1))
    (replica,) = await world.until_ready(1)
    async with asyncio.timeout(SECONDS), aclosing(world.backend.logs("chat-v1", replica.name, follow=True)) as lines:
        assert await anext(lines)
        await world.backend.delete("chat-v1")
        await world.until(lambda statuses: not statuses)
        assert len([line async for line in lines]) <= 3


async def test_changes_are_hinted_at(world: World) -> None:
    await world.backend.apply(world.workload(1))
    async with asyncio.timeout(SECONDS):
        await world.backend.changed()
    waiting = asyncio.create_task(world.backend.changed())
    await world.backend.apply(world.workload(2))
    async with asyncio.timeout(SECONDS):
        await waiting


async def test_another_command_replaces_replicas_without_a_gap(world: World) -> None:
    await world.backend.apply(world.workload(1))
    (old,) = await world.until_ready(1)
    await world.backend.apply(world.workload(1, "--marked"))
    seen_empty = False

    def is_done(statuses: Statuses) -> bool:
        nonlocal seen_empty
        seen_empty |= not statuses[0].ready()
        return len(replicas(statuses)) == 1 and old.name not in names(ready(statuses))

    await world.until(is_done)
    assert not seen_empty


async def test_workloads_do_not_disturb_each_other(world: World) -> None:
    await world.backend.apply(world.workload(1))
    await world.backend.apply(world.workload(1, name="other-v1"))
    await world.until(lambda each: len(ready(each)) == 2)
    await world.backend.delete("other-v1")
    await world.until_ready(1)


async def test_rendering_shows_the_command_and_changes_nothing(world: World) -> None:
    text = world.backend.render(world.workload(2))
    assert msgspec.yaml.decode(text)["name"] == "chat-v1"
    assert STAND_IN.name in text
    assert await world.backend.list() == []


async def test_a_reopened_backend_adopts_what_runs(tmp_path: Path) -> None:
    async with local_world(tmp_path) as world:
        await world.backend.apply(world.workload(2, warm_spares=1))
        before = await world.until_ready(3)
        await world.reopen()
        (status,) = await world.backend.list()
        assert {(each.name, each.process_id, each.is_spare) for each in status.replicas} == {
            (each.name, each.process_id, each.is_spare) for each in before
        }
        assert all(each.phase is ReplicaPhase.READY for each in status.replicas)
        assert [each.restarts for each in status.replicas] == [0, 0, 0]
