"""One event for each failure of a replica, in one sentence."""

from __future__ import annotations

import msgspec
import pytest
from tests.control.conftest import Stage

from argosy.control.running import running_of
from argosy.core.metadata import Event
from argosy.core.workload import REVISION_LABEL, ReplicaPhase, ReplicaStatus, WorkloadStatus

pytestmark = pytest.mark.anyio


async def failures(stage: Stage) -> list[tuple[str, int]]:
    events = [each for each in await stage.store.list(Event) if each.reason == "ReplicaFailed"]
    events.sort(key=lambda each: each.metadata.resource_version)
    return [(each.message, each.count) for each in events]


async def crash(stage: Stage) -> str:
    (status,) = await stage.backend.list()
    stage.backend.crash(status.name, status.replicas[0].name)
    return status.replicas[0].name


async def test_a_replica_that_fails_and_starts_again_is_told_once(stage: Stage) -> None:
    await stage.declare()
    await stage.run(3)
    name = await crash(stage)
    await stage.run(9, step=0.05)
    assert await stage.replicas(ReplicaPhase.READY) == {"chat-v1": 1}
    told = [(f"{name}: ended with exit code -9", 1)]
    assert await failures(stage) == told
    await crash(stage)
    await stage.run(9, step=0.05)
    assert await failures(stage) == [*told, (f"{name} (failure 2): ended with exit code -9", 1)]


async def test_a_control_plane_that_starts_anew_does_not_tell_it_again(stage: Stage) -> None:
    await stage.declare()
    await stage.run(3)
    await crash(stage)
    await stage.run(0.25)
    told = await failures(stage)
    stage.loop = stage.control()
    await stage.run(9)
    assert len(told) == 1
    assert await failures(stage) == told


async def test_a_long_message_is_one_short_sentence(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.declare()
    await stage.run(3)
    await crash(stage)
    plain = stage.backend.list

    async def talkative() -> list[WorkloadStatus]:
        return [
            msgspec.structs.replace(
                status,
                replicas=tuple(msgspec.structs.replace(each, message="no weights " * 90) for each in status.replicas),
            )
            for status in await plain()
        ]

    monkeypatch.setattr(stage.backend, "list", talkative)
    await stage.run(0.25)
    ((message, _),) = await failures(stage)
    assert len(message) == 200
    assert message.endswith("…")


def test_a_replica_that_only_starts_again_says_nothing() -> None:
    silent = ReplicaStatus(name="chat-v1-aaaaa", phase=ReplicaPhase.STARTING, restarts=1)
    status = WorkloadStatus(name="chat-v1", labels={REVISION_LABEL: "v1"}, desired_replicas=1, replicas=(silent,))
    assert running_of([status])["v1"].message == ""
    assert running_of([status])["v1"].failing == 1
