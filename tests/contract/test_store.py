"""The laws of the Store socket, the same for every store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.core.engine import EngineSettings
from argosy.core.errors import Conflict, InvalidRequest, NotFound
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceSpec,
    InferenceServiceStatus,
    Revision,
    RevisionSpec,
    RevisionTemplate,
    ServicePhase,
)
from argosy.core.interfaces import Change, Store
from argosy.core.metadata import Event, Metadata
from argosy.core.scaling import ScalingPolicy
from argosy.stores.memory import MemoryStore
from argosy.stores.records import KINDS, Retention
from argosy.stores.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

NOW = 1_000.0
Open = Callable[[Path], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def memory(_: Path) -> AsyncIterator[Store]:
    yield MemoryStore(lambda: NOW)


@asynccontextmanager
async def sqlite(path: Path) -> AsyncIterator[Store]:
    async with SqliteStore(path, clock=lambda: NOW) as store:
        yield store


STORES: dict[str, Open] = {"memory": memory, "sqlite": sqlite}


@pytest.fixture(params=list(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with STORES[str(request.param)](tmp_path / "state" / "store.sqlite") as opened:
        yield opened


def service(name: str = "chat", *, model: str = "smollm2", **metadata: Any) -> InferenceService:
    spec = InferenceServiceSpec(template=RevisionTemplate(model=model))
    return InferenceService(metadata=Metadata(name=name, **metadata), spec=spec)


def revision(name: str = "chat-v1", number: int = 1) -> Revision:
    spec = RevisionSpec(service="chat", number=number, template=RevisionTemplate(model="smollm2"), digest="d")
    return Revision(metadata=Metadata(name=name), spec=spec)


def event(name: str, *, service: str = "chat", **fields: Any) -> Event:
    return Event(metadata=Metadata(name=name), service=service, subject=service, reason="R", message="m", **fields)


def change(resource: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(resource, **fields)


def with_model(stored: InferenceService, model: str) -> InferenceService:
    return change(stored, spec=change(stored.spec, template=RevisionTemplate(model=model)))


def with_phase(stored: InferenceService, phase: ServicePhase) -> InferenceService:
    return change(stored, status=InferenceServiceStatus(phase=phase))


async def nothing_more(changes: AsyncGenerator[Change[Any]]) -> bool:
    """Whether a watch has no further change to tell at this moment; ends the watch."""
    waiting = asyncio.ensure_future(anext(changes))
    for _ in range(20):
        await asyncio.sleep(0)
    is_silent = not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    return is_silent


async def test_what_was_put_is_got_and_listed(store: Store) -> None:
    stored = await store.put(service(labels={"team": "a"}))
    assert stored.metadata.uid
    assert stored.metadata == Metadata(
        name="chat",
        uid=stored.metadata.uid,
        generation=1,
        resource_version=stored.metadata.resource_version,
        created_at=NOW,
        labels={"team": "a"},
    )
    assert stored.metadata.resource_version > 0
    assert await store.get(InferenceService, "chat") == stored
    assert await store.list(InferenceService) == [stored]


async def test_a_list_is_by_name_and_kinds_are_apart(store: Store) -> None:
    for name in ("b", "a", "c"):
        await store.put(service(name))
    await store.put(revision("a"))
    assert [each.metadata.name for each in await store.list(InferenceService)] == ["a", "b", "c"]
    assert [each.metadata.name for each in await store.list(Revision)] == ["a"]
    assert await store.list(Event) == []
    await store.delete(Revision, "a")
    assert (await store.get(InferenceService, "a")).metadata.name == "a"


async def test_an_absent_name_is_not_found_whatever_is_asked(store: Store) -> None:
    with pytest.raises(NotFound, match="'chat'"):
        await store.get(InferenceService, "chat")
    with pytest.raises(NotFound):
        await store.delete(InferenceService, "chat")
    with pytest.raises(NotFound):
        await store.put_status(service(resource_version=1))


async def test_creating_keeps_the_status_given(store: Store) -> None:
    stored = await store.put(with_phase(service(), ServicePhase.READY))
    assert stored.status.phase is ServicePhase.READY


async def test_f12_creating_twice_is_a_conflict(store: Store) -> None:
    stored = await store.put(service())
    with pytest.raises(Conflict, match="exists already"):
        await store.put(service(model="other"))
    assert await store.get(InferenceService, "chat") == stored


async def test_f12_of_two_writers_with_the_same_base_one_wins(store: Store) -> None:
    base = await store.put(service())
    winner = await store.put(with_model(base, "first"))
    with pytest.raises(Conflict, match="changed since it was read"):
        await store.put(with_model(base, "second"))
    with pytest.raises(Conflict, match="changed since it was read"):
        await store.put_status(with_phase(base, ServicePhase.READY))
    assert await store.get(InferenceService, "chat") == winner


async def test_f12_a_writer_that_comes_after_the_deletion_does_not_bring_it_back(store: Store) -> None:
    base = await store.put(service())
    await store.delete(InferenceService, "chat")
    with pytest.raises(Conflict, match="deleted"):
        await store.put(with_model(base, "late"))
    created = await store.put(service())
    assert created.metadata.uid != base.metadata.uid
    with pytest.raises(Conflict):
        await store.put(with_model(base, "later still"))


async def test_a_changed_spec_raises_the_generation_and_nothing_else_does(store: Store) -> None:
    first = await store.put(service())
    second = await store.put(with_model(first, "other"))
    labelled = await store.put(change(second, metadata=change(second.metadata, labels={"a": "b"})))
    observed = await store.put_status(with_phase(labelled, ServicePhase.READY))
    assert [each.metadata.generation for each in (first, second, labelled, observed)] == [1, 2, 2, 2]
    assert {(each.metadata.uid, each.metadata.created_at) for each in (first, second, labelled, observed)} == {
        (first.metadata.uid, NOW)
    }
    assert observed.metadata.labels == {"a": "b"}


async def test_put_ignores_the_status_when_replacing_and_put_status_the_spec(store: Store) -> None:
    stored = await store.put(service())
    put = await store.put(with_phase(with_model(stored, "other"), ServicePhase.FAILED))
    assert put.status == InferenceServiceStatus()
    assert put.spec.template.model == "other"
    observed = await store.put_status(with_phase(with_model(put, "third"), ServicePhase.READY))
    assert observed.status.phase is ServicePhase.READY
    assert observed.spec.template.model == "other"
    assert await store.get(InferenceService, "chat") == observed


async def test_identity_is_the_stores_own(store: Store) -> None:
    stored = await store.put(service(uid="mine", created_at=5.0, generation=9))
    assert (stored.metadata.uid == "mine", stored.metadata.generation) == (False, 1)
    forged = change(stored, metadata=change(stored.metadata, uid="x", created_at=1.0, generation=50))
    again = await store.put(with_model(forged, "other"))
    assert (again.metadata.uid, again.metadata.created_at) == (stored.metadata.uid, NOW)
    assert again.metadata.generation == 2


async def test_every_write_has_its_own_version_over_all_kinds_and_none_comes_back(store: Store) -> None:
    versions = []
    for _ in range(3):
        stored = await store.put(service())
        versions += [stored.metadata.resource_version]
        versions += [(await store.put_status(with_phase(stored, ServicePhase.READY))).metadata.resource_version]
        versions += [(await store.put(event("e1"))).metadata.resource_version]
        await store.delete(InferenceService, "chat")
        await store.delete(Event, "e1")
    assert versions == sorted(set(versions))


async def test_a_write_that_changes_nothing_is_none(store: Store) -> None:
    stored = await store.put(service())
    async with aclosing(store.watch(InferenceService)) as changes:
        assert (await anext(changes)).resource == stored
        assert await store.put(stored) == stored
        assert await store.put_status(stored) == stored
        assert await nothing_more(changes)


async def test_what_would_not_read_back_is_refused_and_nothing_is_changed(store: Store) -> None:
    poison = change(service().spec, scaling=ScalingPolicy(target=float("nan")))
    local = change(service().spec.template, engine_settings=EngineSettings(cache_dir=Path("/x")))
    unsaid = change(service(), spec=change(service().spec, template=local))
    for bad in (change(service(), spec=poison), service("\ud800"), unsaid):
        with pytest.raises(InvalidRequest, match="cannot be stored"):
            await store.put(bad)
    assert await store.list(InferenceService) == []


async def test_a_watch_tells_what_is_there_then_every_change(store: Store) -> None:
    first = await store.put(service("a"))
    async with aclosing(store.watch(InferenceService)) as changes:
        assert await anext(changes) == Change(resource=first)
        created = await store.put(service("b"))
        assert await anext(changes) == Change(resource=created)
        observed = await store.put_status(with_phase(created, ServicePhase.READY))
        assert await anext(changes) == Change(resource=observed)
        await store.put(revision())
        await store.delete(InferenceService, "b")
        gone = await anext(changes)
        assert gone.is_deleted
        assert gone.resource.metadata.resource_version > observed.metadata.resource_version
        assert change(gone.resource, metadata=observed.metadata) == observed
        assert await nothing_more(changes)


async def test_a_slow_reader_gets_the_last_state_of_each_and_no_more(store: Store) -> None:
    stored = await store.put(service("hot"))
    async with aclosing(store.watch(InferenceService)) as changes:
        assert (await anext(changes)).resource == stored
        for round_number in range(50):
            stored = await store.put(with_model(stored, f"m{round_number}"))
        other = await store.put(service("cold"))
        brief = await store.put(service("brief"))
        await store.delete(InferenceService, brief.metadata.name)
        assert [(await anext(changes)).resource for _ in range(2)] == [stored, other]
        assert await nothing_more(changes)  # it never heard of `brief`, so it need not hear that it is gone


async def test_a_name_that_never_rests_holds_no_other_name_back(store: Store) -> None:
    hot, cold = await store.put(service("hot")), await store.put(service("cold"))
    async with aclosing(store.watch(InferenceService)) as changes:
        assert {(await anext(changes)).resource.metadata.name for _ in range(2)} == {"hot", "cold"}
        hot = await store.put(with_model(hot, "m0"))
        cold = await store.put(with_model(cold, "new"))
        seen = []
        for round_number in range(1, 4):
            hot = await store.put(with_model(hot, f"m{round_number}"))
            seen.append((await anext(changes)).resource)
        assert cold in seen
        assert seen[-1] == hot


async def test_a_deletion_and_a_new_one_of_the_same_name_end_as_the_new_one(store: Store) -> None:
    await store.put(service())
    async with aclosing(store.watch(InferenceService)) as changes:
        await anext(changes)
        await store.delete(InferenceService, "chat")
        again = await store.put(service())
        assert await anext(changes) == Change(resource=again)


async def test_every_watcher_hears_everything_and_leaving_one_changes_nothing(store: Store) -> None:
    watches = [store.watch(InferenceService) for _ in range(3)]
    stored = await store.put(service())
    assert [(await anext(watch)).resource for watch in watches] == [stored] * 3
    await watches[0].aclose()
    again = await store.put(with_model(stored, "other"))
    assert [(await anext(watch)).resource for watch in watches[1:]] == [again] * 2
    for watch in watches:
        await watch.aclose()


async def test_a_watch_cancelled_while_it_waits_is_gone(store: Store) -> None:
    async with aclosing(store.watch(InferenceService)) as changes:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(changes)
    await store.put(service())


async def test_writers_beside_each_other_lose_nothing(store: Store) -> None:
    base = await store.put(service())

    async def add_label(number: int) -> None:
        while True:
            current = await store.get(InferenceService, "chat")
            labels = {**current.metadata.labels, f"l{number}": ""}
            try:
                await store.put(change(current, metadata=change(current.metadata, labels=labels)))
            except Conflict:
                continue
            return

    async with asyncio.TaskGroup() as writers:
        for number in range(20):
            writers.create_task(add_label(number))
    final = await store.get(InferenceService, base.metadata.name)
    assert set(final.metadata.labels) == {f"l{number}" for number in range(20)}


async def test_an_event_is_replaced_whole(store: Store) -> None:
    stored = await store.put(event("e1", count=1))
    again = await store.put(change(stored, count=2, last_at=5.0))
    assert (again.count, again.last_at, again.metadata.generation) == (2, 5.0, 1)
    assert await store.list(Event) == [again]


async def test_of_events_the_newest_thousand_of_each_service_stay(store: Store) -> None:
    first = await store.put(event("e0000"))
    async with asyncio.TaskGroup() as writers:
        for number in range(1, 1000):
            writers.create_task(store.put(event(f"e{number:04}")))
    await store.put(event("other", service="other"))
    repeated = await store.put(change(first, count=2))
    async with aclosing(store.watch(Event)) as changes:
        for _ in range(1001):
            assert not (await anext(changes)).is_deleted
        await store.put(event("e1000"))
        told = [await anext(changes) for _ in range(2)]
    names = {each.metadata.name for each in await store.list(Event)}
    assert len(names) == 1001
    assert {"other", "e1000", repeated.metadata.name} <= names
    assert {(each.resource.metadata.name, each.is_deleted) for each in told} == {("e1000", False)} | {
        (name, True) for name in {f"e{number:04}" for number in range(1000)} - names
    }


async def test_of_all_events_only_so_many_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS["Event"]
    retention = Retention(max_per_family=3, max_records=5)
    monkeypatch.setitem(KINDS, "Event", msgspec.structs.replace(kind, retention=retention))
    for number in range(12):
        await store.put(event(f"e{number:02}", service=f"s{number % 3}"))
    assert [each.metadata.name for each in await store.list(Event)] == ["e07", "e08", "e09", "e10", "e11"]
    await store.delete(Event, "e10")
    again = await store.get(Event, "e07")
    await store.put(change(again, count=2))
    for number in range(12, 15):
        await store.put(event(f"e{number:02}", service="s0"))
    assert [each.metadata.name for each in await store.list(Event)] == ["e07", "e11", "e12", "e13", "e14"]
    moved = await store.get(Event, "e07")
    await store.put(change(moved, service="s0"))  # now one too many of its family
    assert [each.metadata.name for each in await store.list(Event)] == ["e07", "e11", "e13", "e14"]


HOSTILE = st.text(max_size=40) | st.sampled_from(
    (
        "'; DROP TABLE resources; --",
        '" OR ""="',
        "%",
        "_",
        "\\",
        "chat' UNION SELECT 1,2,3,4,5 --",
        "a\x00b",
        "ÅÅ",
        "😀",
        "$(reboot)",
        "{{7*7}}",
    )
)


@pytest.mark.parametrize("name", STORES)
def test_d20_names_labels_and_families_are_never_code(name: str, tmp_path: Path) -> None:
    async def try_out(wanted: str, other: str, text: str, number: int) -> None:
        async with STORES[name](tmp_path / str(number) / "store.sqlite") as store:
            stored = await store.put(service(wanted, labels={text: text}))
            await store.put(event(wanted, service=text))
            if other != wanted:
                with pytest.raises(NotFound):
                    await store.get(InferenceService, other)
                with pytest.raises(NotFound):
                    await store.delete(InferenceService, other)
            assert await store.list(InferenceService) == [stored]
            assert [each.service for each in await store.list(Event)] == [text]
            await store.delete(InferenceService, wanted)
            assert await store.list(InferenceService) == []
            assert len(await store.list(Event)) == 1

    numbers = iter(range(10_000))

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(HOSTILE, HOSTILE, HOSTILE)
    def run(wanted: str, other: str, text: str) -> None:
        asyncio.run(try_out(wanted, other, text, next(numbers)))

    run()


class Model(msgspec.Struct):
    """The store as a table of names: what any sequence of calls must come to."""

    specs: dict[str, str] = {}
    phases: dict[str, ServicePhase] = {}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("put", "stale", "status", "delete", "create")), st.sampled_from("abc"), st.integers(0, 3)
    ),
    max_size=25,
)


@pytest.mark.parametrize("name", STORES)
def test_any_sequence_of_calls_comes_to_what_the_table_says(name: str, tmp_path: Path) -> None:
    async def play(steps: list[tuple[str, str, int]], number: int) -> None:
        model = Model()
        async with (
            STORES[name](tmp_path / str(number) / "store.sqlite") as store,
            aclosing(store.watch(InferenceService)) as changes,
        ):
            await store.put(service("first"))
            assert (await anext(changes)).resource.metadata.name == "first"
            await store.delete(InferenceService, "first")
            for what, key, value in steps:
                await _play_one(store, model, what, key, value)
            await store.put(service("last"))
            seen: dict[str, InferenceService] = {}
            while "last" not in seen:
                told = await anext(changes)
                seen[told.resource.metadata.name] = told.resource
                if told.is_deleted:
                    del seen[told.resource.metadata.name]
            del seen["last"]
            await store.delete(InferenceService, "last")
            listed = {each.metadata.name: each for each in await store.list(InferenceService)}
        assert {key: each.spec.template.model for key, each in listed.items()} == model.specs
        assert {key: each.status.phase for key, each in listed.items()} == model.phases
        assert seen == listed

    numbers = iter(range(10_000))

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STEPS)
    def run(steps: list[tuple[str, str, int]]) -> None:
        asyncio.run(play(steps, next(numbers)))

    run()


async def _play_one(store: Store, model: Model, what: str, key: str, value: int) -> None:
    exists = key in model.specs
    if what == "create":
        if exists:
            with pytest.raises(Conflict):
                await store.put(service(key))
        else:
            await store.put(service(key, model=f"m{value}"))
            model.specs[key], model.phases[key] = f"m{value}", ServicePhase.PENDING
    elif not exists:
        with pytest.raises(NotFound):
            await (store.delete(InferenceService, key) if what == "delete" else store.get(InferenceService, key))
    elif what == "delete":
        await store.delete(InferenceService, key)
        del model.specs[key], model.phases[key]
    else:
        current = await store.get(InferenceService, key)
        if what == "put":
            await store.put(with_model(current, f"m{value}"))
            model.specs[key] = f"m{value}"
        elif what == "status":
            phase = list(ServicePhase)[value]
            await store.put_status(with_phase(current, phase))
            model.phases[key] = phase
        else:
            version = current.metadata.resource_version + 1 + value
            with pytest.raises(Conflict):
                await store.put(with_model(change(current, metadata=Metadata(name=key, resource_version=version)), "s"))
