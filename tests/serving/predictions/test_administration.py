"""What operators may do with archived models, by TorchServe's rules of names and versions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from predictions_world import Ledger, Stage, outcome, settings
from sim_virtual_time import run_virtually

from argosy.core.errors import (
    Conflict,
    DeadlineExceeded,
    EngineError,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    OutOfResources,
)
from argosy.core.model_archive import ArchiveManifest, ArchiveModel, ModelArchive, VersionSettings
from argosy.core.prediction_status import WorkerPhase
from argosy.serving.predictions import registry as registry_of_versions
from argosy.serving.predictions.administration import Administration, OpenedModel, Wiring
from argosy.serving.predictions.requests import RegisterOptions, ScaleOptions
from argosy.serving.predictions.restarts import restart_wait_seconds
from argosy.serving.predictions.results import ListedModel


class Office:
    """An administration whose archives are named by their url: `name@version.mar`."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.changes = 0
        self.settings = settings()
        self.ledgers: list[Ledger] = []
        self.made: list[tuple[VersionSettings, str]] = []

    async def open_model(self, options: RegisterOptions) -> OpenedModel:
        name, _, version = options.url.removesuffix(".mar").partition("@")
        model = ArchiveModel(
            model_name=options.model_name or name, model_version=version or "1.0", handler=options.handler or "h.py"
        )
        manifest = ArchiveManifest(model=model, runtime=options.runtime or "python")
        archive = ModelArchive(url=options.url, root=Path("m"), digest="", manifest=manifest)
        return OpenedModel(archive=archive, settings=self.settings)

    def make_predictor(self, archive: ModelArchive, wanted: VersionSettings, seat: int) -> object:
        self.made.append((wanted, archive.manifest.model.handler))
        return self.stage.make(seat)

    def make_meters(self, name: str, version: str) -> Ledger:
        self.ledgers.append(Ledger())
        return self.ledgers[-1]

    async def note_change(self) -> None:
        self.changes += 1

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Administration]:
        wiring = Wiring(
            open_model=self.open_model,
            make_predictor=self.make_predictor,  # type: ignore[arg-type]
            make_meters=self.make_meters,
            on_change=self.note_change,
        )
        async with Administration(wiring, clock=asyncio.get_running_loop().time) as administration:
            yield administration
        assert not self.stage.living


def register(url: str, **fields: object) -> RegisterOptions:
    return RegisterOptions(url=url, **fields)  # type: ignore[arg-type]


def test_the_first_version_is_the_default_until_another_is_made_so() -> None:
    async def story() -> None:
        office = Office()
        async with office.open() as administration:
            first = await administration.register(register("m@1.mar"))
            assert (first.name, first.version, first.num_workers, first.is_complete) == ("m", "1", 1, True)
            await administration.register(register("m@2.mar"))
            assert administration.registry.default("m") == "1"
            assert [each.is_default for each in administration.describe("m", "all")] == [True, False]
            assert [each.version for each in administration.describe("m")] == ["1"]
            with pytest.raises(Conflict, match="already registered"):
                await administration.register(register("m@2.mar"))
            with pytest.raises(Forbidden, match="default version"):
                await administration.unregister("m")
            assert await administration.set_default("m", "2") == "2"
            assert await administration.unregister("m", "1") == "1"
            assert await administration.unregister("m") == "2"
            with pytest.raises(ModelNotFound):
                administration.describe("m")
            assert office.changes == 5

    run_virtually(story())


def test_what_is_asked_for_goes_before_what_the_archive_says() -> None:
    async def story() -> None:
        office = Office()
        async with office.open() as administration:
            options = register(
                "m@1.mar", model_name="other", handler="mine.py", runtime="python3", batch_size=4, initial_workers=3,
                response_timeout_seconds=7.0,
            )  # fmt: skip
            done = await administration.register(options)
            assert (done.name, done.num_workers) == ("other", 3)
            (status,) = administration.describe("other")
            assert status.runtime == "python3"
            assert (status.settings.batch_size, status.settings.response_timeout_seconds) == (4, 7.0)
            assert (status.settings.min_workers, status.settings.max_workers) == (3, 3)
            assert [worker.seat for worker in status.workers] == [9000, 9001, 9002]
            assert office.made[0][1] == "mine.py"
            assert await administration.describe_handler("other") == {"calls": 0}

    run_virtually(story())


@pytest.mark.parametrize("error", [EngineError("no such file"), OutOfResources("Out of resources")])
def test_a_synchronous_start_that_fails_unregisters_again(error: EngineError) -> None:
    async def story() -> None:
        office = Office()
        office.stage.start_errors = [error] * 9
        async with office.open() as administration:
            with pytest.raises(EngineError, match=error.message) as failed:
                await administration.register(register("m@1.mar"))
            assert failed.value.status == error.status
            assert administration.list().models == ()
            office.stage.start_errors = []
            await administration.register(register("m@2.mar"))
            office.stage.start_errors = [error] * 9
            with pytest.raises(EngineError, match=error.message):
                await administration.register(register("m@1.mar", is_default=True))
            assert administration.registry.default("m") == "2"

    run_virtually(story())


def test_an_asynchronous_start_is_seen_in_the_description() -> None:
    async def story() -> None:
        office = Office()
        office.stage.start_seconds = 5.0
        async with office.open() as administration:
            done = await administration.register(register("m@1.mar", is_synchronous=False))
            assert not done.is_complete
            await asyncio.sleep(1.0)
            (status,) = administration.describe("m")
            assert [worker.phase for worker in status.workers] == [WorkerPhase.STARTING]
            assert not status.is_ready
            assert not administration.is_healthy
            await asyncio.sleep(5.0)
            assert administration.describe("m")[0].is_ready
            assert administration.is_healthy

    run_virtually(story())


def test_scaling_waits_if_asked_and_only_as_long_as_asked() -> None:
    async def story() -> None:
        office = Office()
        async with office.open() as administration:
            await administration.register(register("m@1.mar"))
            office.stage.start_seconds = 5.0
            waiting = ScaleOptions(min_workers=2, is_synchronous=True)
            assert (await administration.scale("m", None, waiting)).is_complete
            assert not (await administration.scale("m", "1", ScaleOptions(min_workers=3))).is_complete
            brief = ScaleOptions(min_workers=4, max_workers=6, is_synchronous=True, timeout_seconds=1.0)
            assert not (await administration.scale("m", "1", brief)).is_complete
            assert administration.describe("m")[0].settings.max_workers == 6
            assert administration.is_healthy  # growing is not being ill
            for wrong in (ScaleOptions(min_workers=3, max_workers=2), ScaleOptions(min_workers=-1)):
                with pytest.raises(InvalidRequest):
                    await administration.scale("m", None, wrong)
            with pytest.raises(NotFound):
                await administration.scale("m", "9", waiting)

    run_virtually(story())


def test_unregistering_answers_what_is_there_and_ends_what_takes_too_long() -> None:
    async def story() -> None:
        office = Office()
        async with office.open() as administration:
            await administration.register(register("m@1.mar"))
            version = administration.registry.get("m")
            asking = [asyncio.create_task(outcome(version, text)) for text in ("ok", "slow", "ok")]
            await asyncio.sleep(0.1)
            await administration.unregister("m")
            assert [task.result() for task in asking] == ["OK", "SLOW", "OK"]
            await administration.register(register("m@1.mar"))
            hanging = asyncio.create_task(outcome(administration.registry.get("m"), "hang"))
            await asyncio.sleep(0.1)
            with pytest.raises(DeadlineExceeded, match="Timed out while cleaning resources: m"):
                await administration.unregister("m", None, 3.0)
            assert await hanging == "WorkerDied"

    run_virtually(story())


def test_aborting_answers_who_is_not_answered_yet() -> None:
    async def story() -> None:
        office = Office()
        async with office.open() as administration:
            asking = []
            for name in ("a", "b"):
                await administration.register(register(f"{name}.mar"))
                asking += [asyncio.create_task(outcome(administration.registry.get(name), "slow")) for _ in range(2)]
            await asyncio.sleep(15.0)
            administration.abort()
            assert await asyncio.gather(*asking) == ["SLOW", "WorkerDied"] * 2

    run_virtually(story())


def test_d35_what_is_gone_leaves_no_series_and_there_are_only_so_many_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        office = Office()
        async with office.open() as administration:
            monkeypatch.setattr(registry_of_versions, "MAX_VERSIONS", 2)
            await administration.register(register("m@1.mar"))
            await administration.register(register("m@2.mar"))
            with pytest.raises(Conflict, match="as many as may be"):
                await administration.register(register("m@3.mar"))
            with pytest.raises(Conflict):
                await administration.register(register("m@2.mar"))
            await administration.unregister("m", "2")
            await administration.unregister("m", "1")
            worker = ["worker 9000", "the last version"], ["worker 9001", "a version"]
            assert [ledger.left for ledger in office.ledgers] == [*worker, ["a version"], []]

    run_virtually(story())


def test_an_unregistration_that_is_given_up_is_noted_all_the_same() -> None:
    async def story() -> None:
        office = Office()
        async with office.open() as administration:
            await administration.register(register("m@1.mar"))
            asking = asyncio.create_task(outcome(administration.registry.get("m"), "slow"))
            await asyncio.sleep(0.1)
            leaving = asyncio.create_task(administration.unregister("m"))
            await asyncio.sleep(0.1)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert (office.changes, await asking) == (2, "WorkerDied")

    run_virtually(story())


def test_models_are_listed_in_pages_by_name() -> None:
    async def story() -> None:
        office = Office()
        async with office.open() as administration:
            for name in ("c", "a", "b"):
                await administration.register(register(f"{name}.mar", initial_workers=0))
            first = administration.list(limit=2)
            assert first.models == (ListedModel(name="a", url="a.mar"), ListedModel(name="b", url="b.mar"))
            last = administration.list(limit=2, offset=int(first.next_page_token))
            assert (last.models, last.next_page_token) == ((ListedModel(name="c", url="c.mar"),), "")
            for odd in ((101, 0), (0, -1), (-5, 0)):
                assert len(administration.list(*odd).models) == 3
            with pytest.raises(ModelNotFound, match="This server has: a, b, c"):
                administration.describe("x")

    run_virtually(story())


@given(st.integers(-3, 10_000))
def test_waits_between_starts_only_grow_and_have_an_end(failures: int) -> None:
    wait = restart_wait_seconds(failures)
    assert 0.0 <= wait <= restart_wait_seconds(failures + 1) <= 1597.0


def test_waits_between_starts_are_torchserve_s() -> None:
    assert list(itertools.islice(map(restart_wait_seconds, itertools.count(1)), 8)) == [0, 1, 1, 2, 3, 5, 8, 13]
