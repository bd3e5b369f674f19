"""Handlers that need no code: an archive names one, and its model answers inside this process.

A preset is two functions, from a request to a prompt and from an answer to a body; `translation` is the GKE tutorial's
handler. `PresetPredictor` puts one behind the `Predictor` socket: many calls at a time, which the engine batches, and
all workers of an archive share one engine. The model also answers the OpenAI API, under its own name.

Adding a preset = two functions and a line in `PRESETS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from argosy.core.errors import EngineDead, EngineError
from argosy.core.model_archive import ModelArchive
from argosy.core.prediction import HandlerMetric, Prediction, PredictRequest, WorkerFacts
from argosy.core.serve_spec import ServeSpec
from argosy.core.torchserve_spec import TorchServeSpec
from argosy.observe.metrics import Metrics
from argosy.server.composition import open_served_model
from argosy.server.translation import languages_of, prompt_of, translate, wish_of
from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import ServedModel

_CALLS_PER_WORKER = 64
_MOST_WAITING = 10_000  # The version's own queue is the bound; this one is never met first.

OpenModel = Callable[[ModelArchive, str], AbstractAsyncContextManager[ServedModel]]


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """prompt: what the model is asked. body: the response's, from the model's text. describe: what it says of itself.

    The mapping is the archive's model-config.yaml. Raises: each InvalidRequest or SpecError.
    """

    prompt: Callable[[PredictRequest, Mapping[str, Any]], str]
    body: Callable[[str], bytes]
    describe: Callable[[Mapping[str, Any]], Any]


def _translation_prompt(request: PredictRequest, config: Mapping[str, Any]) -> str:
    return prompt_of(wish_of(request.parts), languages_of(config))


def _text_body(text: str) -> bytes:
    return msgspec.json.encode({"text": text})


def _translation_description(config: Mapping[str, Any]) -> Any:
    return {"preset": "translation", "languages": languages_of(config)}


# Handler name of a manifest -> what answers.
PRESETS: Mapping[str, Preset] = {
    "translation": Preset(prompt=_translation_prompt, body=_text_body, describe=_translation_description),
}


class _Loaded:
    """One archive's model while somebody uses it."""

    def __init__(self, served: ServedModel, archive: ModelArchive, stack: AsyncExitStack) -> None:
        self.served = served
        self.archive = archive
        self.stack = stack
        self.users = 0


class PresetModels:
    """Archives' models in this process: each loaded once, however many workers use it, and gone with the last one."""

    def __init__(self, registry: ModelRegistry, open_model: OpenModel) -> None:
        """registry: where the OpenAI API finds them."""
        self._registry = registry
        self._open_model = open_model
        self._loaded: dict[str, _Loaded] = {}
        self._loading = asyncio.Lock()

    @asynccontextmanager
    async def use(self, archive: ModelArchive) -> AsyncIterator[ServedModel]:
        """The archive's model, loaded if nobody has. Cancels: what was loaded is closed. Raises: as opening it does."""
        loaded = await self._take(archive)
        try:
            yield loaded.served
        finally:
            await self._give_back(loaded)

    async def _take(self, archive: ModelArchive) -> _Loaded:
        async with self._loading:
            loaded = self._loaded.get(_key(archive))
            if loaded is not None and not await _is_healthy(loaded.served):
                self._forget(loaded)
                loaded = None
            if loaded is None:
                loaded = await self._load(archive)
            loaded.users += 1
            return loaded

    async def _load(self, archive: ModelArchive) -> _Loaded:
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(self._open_model(archive, self._free_name(archive)))
            self._registry.add(served)
            loaded = self._loaded[_key(archive)] = _Loaded(served, archive, stack.pop_all())
            return loaded

    async def _give_back(self, loaded: _Loaded) -> None:
        loaded.users -= 1
        if loaded.users == 0:
            self._forget(loaded)
            await loaded.stack.aclose()

    def _forget(self, loaded: _Loaded) -> None:
        """Let nobody find it any more; who uses it goes on."""
        if self._loaded.get(_key(loaded.archive)) is loaded:
            del self._loaded[_key(loaded.archive)]
            self._registry.remove(loaded.served.name)

    def _free_name(self, archive: ModelArchive) -> str:
        model = archive.manifest.model
        taken = self._registry.names()
        return model.model_name if model.model_name not in taken else f"{model.model_name}-{model.model_version}"


def preset_models(spec: TorchServeSpec, registry: ModelRegistry, metrics: Metrics) -> PresetModels:
    """Presets as one server's spec says."""

    def open_model(archive: ModelArchive, name: str) -> AbstractAsyncContextManager[ServedModel]:
        limits = msgspec.structs.replace(spec.limits, max_waiting=_MOST_WAITING)
        served = ServeSpec(model=f"file:{archive.root}", served_model_name=(name,), store=spec.store, limits=limits)
        return open_served_model(served, metrics=metrics)

    return PresetModels(registry, open_model)


class PresetPredictor:
    """A preset over its archive's model, as a worker in this process."""

    def __init__(self, preset: Preset, archive: ModelArchive, models: PresetModels) -> None:
        self._preset = preset
        self._archive = archive
        self._models = models
        self._stack = AsyncExitStack()
        self._served: ServedModel | None = None
        self._started_at = 0.0

    @property
    def max_concurrent_calls(self) -> int:
        """As many as one engine likes to have at hand."""
        return _CALLS_PER_WORKER

    async def start(self) -> None:
        """Load the model unless another worker has. Cancels: leaves nothing. Raises: SpecError, EngineError."""
        self._preset.describe(self._archive.config)
        self._served = await self._stack.enter_async_context(self._models.use(self._archive))
        self._started_at = time.time()

    async def predict(self, batch: Sequence[PredictRequest]) -> AsyncGenerator[Prediction]:
        """One answer each. Cancels: the engine drops what is not answered.

        Raises: InvalidRequest for a request that makes no sense, and what the model raises; the answers before it are
        out.
        """
        if len(batch) == 1:
            yield await self._answer(0, batch[0])
            return
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(self._outcome(index, request)) for index, request in enumerate(batch)]
        outcomes = [answer.result() for answer in answers]
        for outcome in outcomes:
            if isinstance(outcome, Prediction):
                yield outcome
        for outcome in outcomes:
            if not isinstance(outcome, Prediction):
                raise outcome

    async def describe(self) -> Any:
        """The preset's name and what it can be asked."""
        return self._preset.describe(self._archive.config)

    def facts(self) -> WorkerFacts:
        """When it began; process and memory are the server's own."""
        return WorkerFacts(started_at=self._started_at)

    def report_metrics(self, on_metric: Callable[[HandlerMetric], None]) -> None:
        """A preset reports none of its own: its model's are in the registry."""

    async def close(self) -> None:
        """Give the model back. Idempotent."""
        self._served = None
        await self._stack.aclose()

    async def _answer(self, index: int, request: PredictRequest) -> Prediction:
        if self._served is None:
            raise EngineDead("this worker is closed: send the request to another one")
        prompt = self._preset.prompt(request, self._archive.config)
        text = await translate(self._served, prompt, request.request_id)
        return Prediction(index=index, body=self._preset.body(text), content_type="application/json")

    async def _outcome(self, index: int, request: PredictRequest) -> Prediction | Exception:
        try:
            return await self._answer(index, request)
        except Exception as error:  # noqa: BLE001  # boundary: one bad request of a batch must not end the others
            return error


def _key(archive: ModelArchive) -> str:
    model = archive.manifest.model
    return f"{archive.digest} {model.model_name} {model.model_version}"


async def _is_healthy(served: ServedModel) -> bool:
    try:
        await served.check_health()
    except EngineError:
        return False
    return True
