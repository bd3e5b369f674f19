"""A TorchServe server without processes: scripted predictors behind the real registry, edge and routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from argosy.core.errors import ArgosyError, NotFound
from argosy.core.model_archive import ArchiveManifest, ArchiveModel, ModelArchive, VersionSettings
from argosy.core.prediction import HandlerMetric, Prediction, PredictRequest, WorkerFacts
from argosy.core.torchserve_spec import MetricsSet
from argosy.core.web_spec import WebSpec
from argosy.observe.metrics import METRICS, Metrics
from argosy.observe.torchserve_metrics import TorchServeMeters, torchserve_metrics
from argosy.protocols.torchserve import REPLY_HEADERS, Api, ErrorShape, Parts, WireSettings, paths_of, routes_of
from argosy.serving.predictions.administration import Administration, OpenedModel, Wiring
from argosy.serving.predictions.requests import RegisterOptions
from argosy.web.access import door_for
from argosy.web.api_keys import ApiKeys
from argosy.web.edge import Edge, EdgeSettings
from argosy.web.lifecycle import Lifecycle
from argosy.web.operations import Operations

ALL = frozenset(Api)
Answers = Callable[[PredictRequest], Sequence[Prediction] | ArgosyError]


def echo(request: PredictRequest) -> Sequence[Prediction]:
    """The parts and headers it got, as JSON."""
    parts = [{"name": part.name, "content": part.content.decode("latin-1"), "type": part.content_type}
             for part in request.parts]  # fmt: skip
    body = json.dumps({"parts": parts, "headers": request.headers}).encode()
    return [Prediction(index=0, body=body, content_type="application/json")]


class Scripted:
    """A predictor in this process: answers with what its script says, one request at a time."""

    def __init__(self, store: Store, stem: str) -> None:
        self._store = store
        self._answers = store.scripts[stem]
        self._start_error = store.start_errors.get(stem)
        self._description = store.descriptions.get(stem)
        self.report: Callable[[HandlerMetric], None] = lambda metric: None

    async def start(self) -> None:
        if self._start_error is not None:
            raise self._start_error

    async def predict(self, batch: Sequence[PredictRequest]) -> AsyncGenerator[Prediction]:
        self._store.entered.set()
        await self._store.gate.wait()
        for index, request in enumerate(batch):
            answer = self._answers(request)
            if isinstance(answer, ArgosyError):
                raise answer
            for piece in answer:
                yield msgspec.structs.replace(piece, index=index)

    async def describe(self) -> Any:
        return self._description

    def facts(self) -> WorkerFacts:
        return WorkerFacts(pid=7, started_at=1_706_696_430.123, memory_bytes=123_456)

    def report_metrics(self, on_metric: Callable[[HandlerMetric], None]) -> None:
        self.report = on_metric

    async def close(self) -> None:
        pass


class Store:
    """Archives by file name: `echo.mar` has the model echo, version 1.0; `echo-2.mar` its version 2.0."""

    def __init__(self) -> None:
        self.settings = VersionSettings()
        self.scripts: dict[str, Answers] = {"echo": echo}
        self.descriptions: dict[str, Any] = {}
        self.failures: dict[str, ArgosyError] = {}
        self.start_errors: dict[str, ArgosyError] = {}
        self.predictors: list[Scripted] = []
        self.entered = asyncio.Event()  # a predictor has been called
        self.gate = asyncio.Event()  # predictors answer once it is set, as it is at first
        self.gate.set()

    async def open_model(self, options: RegisterOptions) -> OpenedModel:
        if failure := self.failures.get(options.url):
            raise failure
        stem, _, version = options.url.removesuffix(".mar").partition("-")
        if stem not in self.scripts:
            raise NotFound(f"Model not found in model store: {options.url}")
        model = ArchiveModel(
            model_name=options.model_name or stem, model_version=f"{version or 1}.0", handler="handler.py"
        )
        archive = ModelArchive(
            url=options.url, root=Path("/models"), digest="sha256:0", manifest=ArchiveManifest(model=model)
        )
        return OpenedModel(archive=archive, settings=self.settings)

    def make_predictor(self, archive: ModelArchive, settings: VersionSettings, seat: int) -> Scripted:
        stem = archive.url.removesuffix(".mar").partition("-")[0]
        predictor = Scripted(self, stem)
        self.predictors.append(predictor)
        return predictor


class Server:
    """One listener's application and what stands behind it."""

    def __init__(self, store: Store, administration: Administration, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self.store = store
        self.administration = administration
        self.metrics = metrics
        self.lifecycle = lifecycle

    def edge(
        self,
        *apis: Api,
        settings: WireSettings | None = None,
        keys: ApiKeys | None = None,
        max_body_bytes: int = 65_536,
        **parts: Any,
    ) -> Edge:
        wire = settings or WireSettings()
        wanted = frozenset(apis) or ALL
        made = Parts(
            administration=self.administration,
            lifecycle=self.lifecycle,
            metrics=self.metrics,
            settings=wire,
            **parts,
        )
        routes = routes_of(wanted, made)
        routes += Operations(self.lifecycle, self.metrics, "A test.").routes(routes)
        door = door_for(WebSpec(), keys or ApiKeys(), paths_of(wanted, made))
        rules = EdgeSettings(
            door=door,
            max_body_bytes=max_body_bytes,
            access_log=False,
            render=ErrorShape(wire, openai_paths=Api.INFERENCE in wanted).render,
            headers=REPLY_HEADERS,
            closes_on_error=wire.is_strict,
        )
        return Edge(routes, self.lifecycle, self.metrics, rules)

    def client(self, *apis: Api, **options: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.edge(*apis, **options))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def load(self, url: str, **options: Any) -> None:
        await self.administration.register(RegisterOptions(url=url, **options))


@contextlib.asynccontextmanager
async def open_server(store: Store, label_set: MetricsSet = MetricsSet.NEW, **meters: Any) -> AsyncIterator[Server]:
    metrics = Metrics((*METRICS, *torchserve_metrics(label_set)))
    meters_of = TorchServeMeters(metrics, label_set, **meters)

    async def on_change() -> None:
        pass

    wiring = Wiring(
        open_model=store.open_model,
        make_predictor=store.make_predictor,
        make_meters=meters_of.of_version,
        on_change=on_change,
    )
    lifecycle = Lifecycle("loading")
    lifecycle.ready()
    async with Administration(wiring) as administration:
        meters_of.watch_queues(
            lambda: ((each.name, each.version, each.num_queued) for each in administration.registry.all())
        )
        yield Server(store, administration, metrics, lifecycle)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def server(store: Store) -> AsyncIterator[Server]:
    """A server with the model echo, version 1.0."""
    async with open_server(store) as server:
        await server.load("echo.mar", is_loaded_at_startup=True)
        yield server


@pytest.fixture
def opened() -> Callable[..., contextlib.AbstractAsyncContextManager[Server]]:
    """Open a server with one's own store."""
    return open_server
