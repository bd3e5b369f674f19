"""The levers of the fake, and its speed. Its laws are in tests/contract/test_backend.py."""

from __future__ import annotations

import time

import pytest

from argosy.backends.fake import FakeBackend
from argosy.core.errors import BackendError, NotFound
from argosy.core.workload import ReplicaPhase, ReplicaStatus, Workload

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def workload(name: str = "chat-v1", replicas: int = 1, **fields: int) -> Workload:
    return Workload(name=name, argv=("serve",), replicas=replicas, **fields)


async def only(backend: FakeBackend) -> ReplicaStatus:
    (status,) = await backend.list()
    (replica,) = status.replicas
    return replica


async def test_it_lives_on_the_clock_it_was_given() -> None:
    clock = Clock()
    backend = FakeBackend(clock)
    await backend.apply(workload())
    assert backend.advance() == 1001.0
    clock.now = 1000.9
    assert (await only(backend)).phase is ReplicaPhase.STARTING
    clock.now = 5000.0
    replica = await only(backend)
    assert (replica.phase, replica.started_at, replica.ready_at) == (ReplicaPhase.READY, 1000.0, 1001.0)


async def test_a_crash_is_followed_by_a_start_and_many_by_a_crash_loop() -> None:
    clock = Clock()
    backend = FakeBackend(clock)
    await backend.apply(workload())
    clock.now += 1
    name = (await only(backend)).name
    backend.crash("chat-v1", name)
    crashed = await only(backend)
    assert (crashed.phase, crashed.reason, crashed.last_exit_code) == (ReplicaPhase.BACKOFF, "Crashed", -9)
    clock.now += 0.1
    assert (await only(backend)).phase is ReplicaPhase.STARTING
    backend.failing.add("chat-v1")
    clock.now += 100
    looping = await only(backend)
    assert (looping.phase, looping.reason) == (ReplicaPhase.BACKOFF, "CrashLoop")
    assert looping.restarts > 3


async def test_capacity_holds_replicas_back_until_there_is_room() -> None:
    clock = Clock()
    backend = FakeBackend(clock)
    backend.capacity = 1
    await backend.apply(workload("a"))
    await backend.apply(workload("b"))
    _, b = await backend.list()
    assert (b.replicas[0].phase, b.reason) == (ReplicaPhase.PENDING, "Unschedulable")
    await backend.delete("a")
    clock.now += 0.5
    (b,) = await backend.list()
    assert (b.replicas[0].phase, b.reason) == (ReplicaPhase.STARTING, "")


async def test_f22_calls_fail_as_often_as_they_were_told_to() -> None:
    backend = FakeBackend(Clock())
    backend.faults.extend([BackendError("gone: wait")] * 2)
    for _ in range(2):
        with pytest.raises(BackendError):
            await backend.apply(workload())
    await backend.apply(workload())
    assert await only(backend)


async def test_levers_refuse_what_is_not_there() -> None:
    with pytest.raises(NotFound):
        FakeBackend(Clock()).crash("chat-v1", "chat-v1-00000")


async def test_ten_thousand_replicas_are_listed_within_50_ms() -> None:
    clock = Clock()
    backend = FakeBackend(clock)
    for number in range(1000):
        await backend.apply(workload(f"w{number}", replicas=10))
    clock.now += 2
    await backend.list()
    began = time.perf_counter()
    backend.crash("w7", (await backend.list())[7].replicas[0].name)
    assert sum(len(each.replicas) for each in await backend.list()) == 10_000
    assert time.perf_counter() - began < 0.05
