"""The translation preset as a predictor: shared engines, batches with a bad request in them, and who leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from argosy.core.engine import EngineSettings
from argosy.core.errors import EngineDead, InvalidRequest, SpecError
from argosy.core.interfaces import ConcurrentCalls
from argosy.core.model import ModelFiles
from argosy.core.model_archive import ArchiveManifest, ArchiveModel, ModelArchive
from argosy.core.prediction import InputPart, Prediction, PredictRequest
from argosy.core.torchserve_spec import TorchServeSpec
from argosy.engines.echo import EchoEngine
from argosy.observe.metrics import Metrics
from argosy.server.torchserve.presets import PRESETS, PresetModels, PresetPredictor, preset_models
from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import Identity, Language, ServedModel
from argosy.text.tokenizer import load_tokenizer

T5 = Path(__file__).parents[3] / "examples" / "t5" / "model"
LANGUAGES = {"en": "English", "fr": "French", "de": "German"}

pytestmark = pytest.mark.anyio


def archive(version: str = "1.0", config: dict[str, object] | None = None) -> ModelArchive:
    model = ArchiveModel(model_name="t5-small", model_version=version, handler="translation")
    config = {"translation": {"languages": LANGUAGES}} if config is None else config
    manifest = ArchiveManifest(model=model)
    return ModelArchive(url="t5-small.mar", root=T5, digest="sha256:" + "7" * 64, manifest=manifest, config=config)


def wish(text: str, target: str = "fr") -> PredictRequest:
    content = msgspec.json.encode({"text": text, "from": "en", "to": target})
    return PredictRequest(request_id=text, parts=(InputPart(name="body", content=content),))


def predictor(models: PresetModels, of: ModelArchive | None = None) -> PresetPredictor:
    return PresetPredictor(PRESETS["translation"], of or archive(), models)


async def answers(worker: PresetPredictor, *batch: PredictRequest) -> list[Prediction]:
    async with aclosing(worker.predict(batch)) as pieces:
        return [piece async for piece in pieces]


@pytest.fixture
def registry() -> ModelRegistry:
    return ModelRegistry()


@pytest.fixture
def models(registry: ModelRegistry, tmp_path: Path) -> PresetModels:
    """As a server makes them."""
    return preset_models(TorchServeSpec(model_store=tmp_path, store=tmp_path), registry, Metrics())


async def test_one_bad_wish_of_a_batch_fails_behind_the_answers_of_the_others(models: PresetModels) -> None:
    worker = predictor(models)
    await worker.start()
    [good] = await answers(worker, wish("twelve"))
    assert (good.body, good.content_type, good.is_last) == (b'{"text":"douze"}', "application/json", True)
    async with aclosing(worker.predict([wish("two"), wish("three", "es"), wish("four")])) as pieces:
        told = [await anext(pieces) for _ in range(2)]
        with pytest.raises(InvalidRequest, match=r"en \(English\), fr \(French\), de \(German\):"):
            await anext(pieces)
    assert [(piece.index, piece.body) for piece in told] == [(0, b'{"text":"deux"}'), (2, b'{"text":"quatre"}')]
    assert await worker.describe() == {"preset": "translation", "languages": LANGUAGES}
    await worker.close()


async def test_workers_share_one_engine_which_goes_with_the_last(models: PresetModels, registry: ModelRegistry) -> None:
    first, second = predictor(models), predictor(models)
    assert isinstance(first, ConcurrentCalls)
    await asyncio.gather(first.start(), second.start())
    assert registry.names() == ("t5-small",)
    await first.close()
    await first.close()
    assert [piece.body for piece in await answers(second, wish("one"))] == [b'{"text":"un"}']
    with pytest.raises(EngineDead):
        await answers(first, wish("one"))
    await second.close()
    assert registry.names() == ()


async def test_a_second_version_has_a_name_of_its_own_beside_the_first(
    models: PresetModels, registry: ModelRegistry
) -> None:
    workers = [predictor(models, archive(version)) for version in ("1.0", "2.0")]
    for worker in workers:
        await worker.start()
    assert registry.names() == ("t5-small", "t5-small-2.0")
    for worker in workers:
        await worker.close()


async def test_a_wrong_section_is_refused_before_anything_is_loaded(
    models: PresetModels, registry: ModelRegistry
) -> None:
    worker = predictor(models, archive(config={"translation": {"languages": ["en"]}}))
    with pytest.raises(SpecError, match="translation"):
        await worker.start()
    await worker.close()
    assert registry.names() == ()


class _Letters:
    """Opens a model that says its prompt, slowly; keeps its engines for the test to look at."""

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self.engines: list[EchoEngine] = []

    @asynccontextmanager
    async def open(self, _: ModelArchive, name: str) -> AsyncIterator[ServedModel]:
        engine = EchoEngine(self._files, EngineSettings(engine_args={"steps_per_second": 500}))
        self.engines.append(engine)
        identity = Identity(name=name, root="file:letters", created=1, info=self._files.info)
        yield ServedModel(identity, engine, Language(tokenizer=load_tokenizer(self._files)), metrics=Metrics())
        await engine.close()


def running(engines: Sequence[EchoEngine]) -> int:
    return sum(engine.stats().num_requests_running for engine in engines)


async def test_f06_who_leaves_costs_nothing_from_then_on(letters_files: ModelFiles, registry: ModelRegistry) -> None:
    letters = _Letters(letters_files)
    worker = predictor(PresetModels(registry, letters.open))
    await worker.start()
    asking = asyncio.ensure_future(answers(worker, wish("never"), wish("ever")))
    while running(letters.engines) < 2:  # noqa: ASYNC110  # the engine has no event for it
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert running(letters.engines) == 0
    await worker.close()


async def test_a_worker_that_starts_anew_gets_no_dead_engine(
    letters_files: ModelFiles, registry: ModelRegistry
) -> None:
    letters = _Letters(letters_files)
    models = PresetModels(registry, letters.open)
    first, second = predictor(models), predictor(models)
    await first.start()
    await letters.engines[0].close()
    await second.start()
    assert len(letters.engines) == 2
    assert registry.names() == ("t5-small",)
    await first.close()
    assert registry.names() == ("t5-small",)
    await second.close()
    assert registry.names() == ()
