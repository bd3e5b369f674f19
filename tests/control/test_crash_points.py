"""The control plane is killed before and after each of its writes; the next one goes on, and nothing is done twice."""

from __future__ import annotations

from typing import Any

import pytest
from tests.control.conftest import Stage

from argosy.backends.fake import FakeBackend
from argosy.control.loop import ControlLoop
from argosy.control.settings import ControlSettings
from argosy.core.inference_service import Revision, RolloutPhase, ServicePhase
from argosy.core.workload import ReplicaPhase
from argosy.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio


class Killed(BaseException):
    """The process ends here."""


class Fuse:
    """Burns down with each effect; at zero the process is dead, before or after the effect."""

    def __init__(self, effects: int, *, is_after: bool) -> None:
        self.effects, self.is_after = effects, is_after

    def wrap(self, target: Any, names: tuple[str, ...]) -> Any:
        fuse = self

        class Mortal:
            def __getattr__(self, name: str) -> Any:
                found = getattr(target, name)
                return fuse.mortal(found) if name in names else found

        return Mortal()

    def mortal(self, effect: Any) -> Any:
        async def act(*arguments: Any) -> Any:
            self.effects -= 1
            if self.effects < 0 and not self.is_after:
                raise Killed
            done = await effect(*arguments)
            if self.effects < 0:
                raise Killed
            return done

        return act


def mortal_loop(stage: Stage, effects: int, *, is_after: bool) -> ControlLoop:
    fuse = Fuse(effects, is_after=is_after)
    return ControlLoop(
        fuse.wrap(stage.store, ("put", "put_status", "delete")),
        fuse.wrap(stage.backend, ("apply", "delete")),
        ControlSettings(program=("argosy",)),
        clock=stage.clock,
    )


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("effects", range(16))
async def test_f10_killed_at_any_write_of_a_deploy_and_an_update(effects: int, is_after: bool) -> None:
    stage = Stage()
    assert isinstance(stage.store, MemoryStore)
    assert isinstance(stage.backend, FakeBackend)
    await stage.declare(replicas=2)
    stage.loop = mortal_loop(stage, effects, is_after=is_after)
    kills, most = 0, 0
    for step in range(120):
        if step == 12:
            await stage.change(model="two")
        try:
            await stage.run(0.25)
        except Killed:
            kills += 1
            stage.loop = stage.control()
        most = max(most, sum((await stage.replicas()).values()))
    assert kills == 1
    assert most <= 3
    assert await stage.replicas(ReplicaPhase.READY) == {"chat-v2": 2}
    status = await stage.status()
    assert (status.phase, status.rollout.phase) == (ServicePhase.READY, RolloutPhase.STABLE)
    assert [each.spec.number for each in await stage.store.list(Revision)] == [1, 2]
    assert stage.weights() == {"v2": 100}
    assert {"RevisionCreated", "RolloutComplete", "ServiceReady"} <= set(await stage.reasons())


@pytest.mark.parametrize("effects", range(4))
async def test_f10_killed_at_any_write_of_a_deletion(stage: Stage, effects: int) -> None:
    await stage.declare()
    await stage.run(3)
    await stage.change(model="two")
    await stage.run(1.5)
    await stage.store.delete(type(await stage.service()), "chat")
    stage.loop = mortal_loop(stage, effects, is_after=True)
    for _ in range(60):
        try:
            await stage.run(0.25)
        except Killed:
            stage.loop = stage.control()
    assert await stage.backend.list() == []
    assert await stage.store.list(Revision) == []
