"""What cannot be read is not taken for gone, and nobody asks for it without a pause."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.control.conftest import Gateway, Stage, service_of

from argosy.control.loop import ControlLoop
from argosy.control.world import World
from argosy.core.errors import StoreError
from argosy.core.inference_service import InferenceService, Revision, RevisionTemplate
from argosy.core.interfaces import Change

pytestmark = pytest.mark.anyio


class FailingStore:
    """The stage's store, whose lists fail a few times; `during` happens within a list of revisions."""

    def __init__(self, stage: Stage, failures: int = 0) -> None:
        self.inner, self.failures, self.lists = stage.store, failures, 0
        self.during: Any = None

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def list(self, kind: type[Any]) -> list[Any]:
        self.lists += 1
        if self.failures:
            self.failures -= 1
            raise StoreError("input/output error")
        found = await self.inner.list(kind)
        if kind is Revision and self.during is not None:
            during, self.during = self.during, None
            await during()
        return found


def control_over(stage: Stage, store: FailingStore) -> ControlLoop:
    return ControlLoop(store, stage.backend, stage.loop.settings, clock=stage.clock)  # type: ignore[arg-type]


async def test_f09_a_store_that_fails_at_the_start_ends_no_replica(stage: Stage) -> None:
    await stage.declare(replicas=2)
    await stage.run(3)
    store = FailingStore(stage, failures=3)
    stage.loop = control_over(stage, store)
    for _ in range(8):  # Hints of the backend come at any time.
        await stage.loop.look()
        assert stage.loop.routes().version == 0
        assert await stage.replicas() == {"chat-v1": 2}
        stage.now += 0.1
    assert store.lists == 2  # Half a second between two tries.
    await stage.run(3)
    assert stage.endpoints() == {"v1": 2}


async def test_a_service_declared_while_the_store_is_read_is_not_forgotten(stage: Stage) -> None:
    store = FailingStore(stage)
    stage.loop = control_over(stage, store)
    await stage.declare("other")

    async def declared() -> None:
        stage.loop.heard(Change(resource=await stage.store.put(service_of("chat"))))

    store.during = declared
    await stage.run(3)
    assert await stage.replicas() == {"chat-v1": 1, "other-v1": 1}


async def test_a_service_deleted_while_the_store_is_read_stays_deleted(stage: Stage) -> None:
    one = await stage.declare("one")
    world = World(stage.loop.settings)
    world.services = {"one": one}
    before = dict(world.services)
    world.forget("one")
    world.take_services([one], [], before)
    assert world.services == {}


async def test_a_refused_spec_leaves_nothing_due(stage: Stage) -> None:
    await stage.declare()
    await stage.run(3)
    await stage.change(model="two")
    await stage.run(0.5)
    assert stage.loop._due
    await stage.change(template=RevisionTemplate(model=""))
    await stage.run(3)
    assert (await stage.status()).phase == "failed"
    assert not stage.loop._due


async def test_a_service_made_anew_while_the_old_one_is_acted_on_begins_anew(stage: Stage) -> None:
    await stage.declare()
    apply = stage.backend.apply

    async def replaced(workload: Any) -> None:
        await apply(workload)
        if workload.name == "alpha-v1":
            stage.backend.apply = apply  # type: ignore[method-assign]
            old = await stage.service()
            await stage.store.delete(InferenceService, "chat")
            stage.loop.heard(Change(resource=old, is_deleted=True))
            await stage.declare()

    stage.backend.apply = replaced  # type: ignore[method-assign]
    await stage.declare("alpha")
    stage.now += 0.25
    await stage.loop.look()
    assert (await stage.status()).observed_generation == 0
    await stage.run(3)
    assert (await stage.status()).ready_replicas == 1


async def test_rates_are_of_the_last_seconds_though_nothing_else_happens(stage: Stage) -> None:
    stage.gateway = gateway = Gateway()
    await stage.declare()
    await stage.run(3)
    for second in range(60):  # The loop sleeps: the number is fixed and nothing changes.
        gateway.serve("chat", "v1", 10 if second < 30 else 0)
        stage.now += 1.0
        await stage.report()
    seconds, recent = stage.loop.world.ledger.recent("chat", stage.now)
    assert seconds <= 12.0
    assert recent.arrivals == 0


async def test_a_service_deleted_while_another_one_is_decided_stops_nothing(stage: Stage) -> None:
    """The first one is made a revision of, which waits for the store; meanwhile both are deleted."""
    put = stage.store.put

    async def deleted(resource: Any) -> Any:
        stage.store.put = put  # type: ignore[method-assign]
        stored = await put(resource)
        for name in ("alpha", "chat"):
            old = await stage.service(name)
            await stage.store.delete(InferenceService, name)
            metadata = msgspec.structs.replace(old.metadata, resource_version=old.metadata.resource_version + 100)
            stage.loop.heard(Change(resource=msgspec.structs.replace(old, metadata=metadata), is_deleted=True))
        return stored

    await stage.declare("alpha")
    await stage.declare("chat")
    stage.store.put = deleted  # type: ignore[method-assign]
    await stage.run(3)
    assert stage.loop.world.memories == {}
    assert await stage.replicas() == {}
    assert await stage.store.list(Revision) == []
