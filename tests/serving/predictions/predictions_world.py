"""A scripted predictor, and versions over it. A request's text says what its handler does with it.

ok, ok1, …  answered with its text in capitals           bad     the whole call fails, as a handler's exception does
slow        as ok, ten seconds later                      kill    the worker dies of it
stream      three pieces, a second apart, then the last   hang    nothing is ever answered
ooms        the worker runs out of memory                 mute    its answer is missing
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from argosy.core.errors import ArgosyError, EngineError, HandlerError, NotBegun, OutOfResources, WorkerDied
from argosy.core.model_archive import ArchiveManifest, ModelArchive, VersionSettings
from argosy.core.prediction import HandlerMetric, InputPart, Prediction, PredictRequest, WorkerFacts
from argosy.serving.predictions.version import Birth, PredictionVersion

ARCHIVE = ModelArchive(url="m.mar", root=Path("m"), digest="", manifest=ArchiveManifest())


class Ledger:
    """Reads the meters: one `arrived` and one `ended` per request, whatever happens."""

    def __init__(self) -> None:
        self.arrived_ids: Counter[str] = Counter()
        self.ended_ids: Counter[str] = Counter()
        self.seconds: dict[str, tuple[float, float]] = {}
        self.batches: list[int] = []
        self.loads: list[float] = []
        self.metrics: list[HandlerMetric] = []
        self.left: list[str] = []

    def arrived(self, request: PredictRequest) -> None:
        self.arrived_ids[request.request_id] += 1

    def ended(
        self, request: PredictRequest, queue_seconds: float, inference_seconds: float, error: ArgosyError | None
    ) -> None:
        self.ended_ids[request.request_id] += 1
        self.seconds[request.request_id] = (queue_seconds, inference_seconds)

    def batch(self, size: int, seconds: float) -> None:
        self.batches.append(size)

    def worker_loaded(self, seat: int, seconds: float) -> None:
        self.loads.append(seconds)

    def worker_left(self, seat: int) -> None:
        self.left.append(f"worker {seat}")

    def version_left(self, *, is_last: bool) -> None:
        self.left.append("the last version" if is_last else "a version")

    def handler_metric(self, metric: HandlerMetric) -> None:
        self.metrics.append(metric)


class Stage:
    """What all predictors of a test share: how long they take, what they saw."""

    def __init__(self, seconds: Callable[[int], float] = lambda size: 1.0) -> None:
        self.seconds = seconds
        self.start_seconds = 0.0
        self.start_errors: list[ArgosyError | None] = []
        self.calls: list[tuple[int, tuple[str, ...]]] = []
        self.living: list[ScriptedPredictor] = []
        self.num_made = 0

    def make(self, seat: int) -> ScriptedPredictor:
        self.num_made += 1
        return ScriptedPredictor(self, seat)

    def texts(self) -> list[tuple[str, ...]]:
        """The batches, in the order their calls began."""
        return [texts for _, texts in self.calls]


class ScriptedPredictor:
    """One worker. It insists on what its socket promises: started once, one call at a time."""

    def __init__(self, stage: Stage, seat: int) -> None:
        self.stage = stage
        self.seat = seat
        self.is_busy = False
        self.death: asyncio.Future[ArgosyError] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        await asyncio.sleep(self.stage.start_seconds)
        if self.stage.start_errors and (error := self.stage.start_errors.pop(0)) is not None:
            raise error
        self.stage.living.append(self)

    async def predict(self, batch: Sequence[PredictRequest]) -> AsyncGenerator[Prediction]:
        assert self in self.stage.living
        assert not self.is_busy
        self.is_busy = True
        try:
            texts = tuple(text_of(request) for request in batch)
            self.stage.calls.append((self.seat, texts))
            await asyncio.sleep(self.stage.seconds(len(batch)) + 10.0 * texts.count("slow"))
            if "hang" in texts:
                await asyncio.get_running_loop().create_future()
            for index, text in enumerate(texts):
                async for piece in self._answer(index, text):
                    yield piece
        finally:
            self.is_busy = False

    async def _answer(self, index: int, text: str) -> AsyncGenerator[Prediction]:
        if text == "bad":
            raise HandlerError("Prediction failed", cause="ValueError: bad")
        if text == "kill":
            raise self.die(WorkerDied("Worker died."))
        if text == "ooms":
            raise self.die(OutOfResources("Out of resources"))
        if text == "mute":
            return
        if text == "stream":
            for number in range(3):
                yield Prediction(index=index, body=str(number).encode(), is_last=False)
                await asyncio.sleep(1.0)
        yield Prediction(index=index, body=text.upper().encode())

    def die(self, error: EngineError) -> EngineError:
        """End by itself."""
        if self in self.stage.living:
            self.stage.living.remove(self)
        if not self.death.done():
            self.death.set_result(error)
        return error

    async def ended(self) -> ArgosyError:
        return await asyncio.shield(self.death)

    async def describe(self) -> Any:
        assert not self.is_busy
        return {"calls": len(self.stage.calls)}

    def facts(self) -> WorkerFacts:
        return WorkerFacts(pid=self.seat, started_at=1.0, memory_bytes=1 << 20)

    def report_metrics(self, on_metric: Callable[[HandlerMetric], None]) -> None:
        on_metric(HandlerMetric(name="Loads", value=1.0))

    async def close(self) -> None:
        if self in self.stage.living:
            self.stage.living.remove(self)
        self.death.cancel()


class ConcurrentPredictor(ScriptedPredictor):
    """Takes several calls at a time, each ended at once when it is closed."""

    max_concurrent_calls = 4

    async def predict(self, batch: Sequence[PredictRequest]) -> AsyncGenerator[Prediction]:
        self.is_busy = False
        async with aclosing(super().predict(batch)) as pieces:
            async for piece in pieces:
                self.is_busy = False
                yield piece


class AheadPredictor(ScriptedPredictor):
    """Keeps up to three calls waiting for the one at hand; those it had not begun when it ended say so."""

    max_calls_ahead = 3

    def __init__(self, stage: Stage, seat: int) -> None:
        super().__init__(stage, seat)
        self.turn = asyncio.Lock()
        self.num_open = 0
        self.most_open = 0

    async def predict(self, batch: Sequence[PredictRequest]) -> AsyncGenerator[Prediction]:
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        assert self.num_open <= 1 + self.max_calls_ahead
        try:
            async with self.turn:
                if self.death.done():
                    raise NotBegun("Worker died.")
                async with aclosing(super().predict(batch)) as pieces:
                    async for piece in pieces:
                        yield piece
        finally:
            self.num_open -= 1


class CoalescingPredictor(AheadPredictor):
    """Writes answers together: what it had answered but not sent when it ended is lost."""

    async def predict(self, batch: Sequence[PredictRequest]) -> AsyncGenerator[Prediction]:
        async with aclosing(super().predict(batch)) as pieces:
            answer = [piece async for piece in pieces]
        if self.turn.locked():
            await asyncio.sleep(1.5 * self.stage.seconds(1))
        if self.death.done():
            raise WorkerDied("Worker died.")
        for piece in answer:
            yield piece


def text_of(request: PredictRequest) -> str:
    return request.parts[0].content.decode()


_IDS = itertools.count(1)


def request(text: str, **fields: Any) -> PredictRequest:
    """A request that makes the handler do `text`."""
    part = InputPart(name="body", content=text.encode())
    return PredictRequest(request_id=f"r{next(_IDS)}", parts=(part,), **fields)


def settings(**fields: Any) -> VersionSettings:
    """Untuned and short, unless told otherwise."""
    return VersionSettings(**{"is_tuned": False, "max_batch_delay_seconds": 0.0, "job_queue_size": 1000, **fields})


@asynccontextmanager
async def serving(
    stage: Stage, wanted: VersionSettings, ledger: Ledger | None = None, make: Any = None
) -> AsyncIterator[PredictionVersion]:
    """A version that lives as long as the block; every worker must be closed by then."""
    loop = asyncio.get_running_loop()
    seats = itertools.count(9000)
    version = PredictionVersion(
        Birth(
            name="m",
            archive=ARCHIVE,
            settings=wanted,
            make_predictor=make or stage.make,
            next_seat=lambda: next(seats),
            meters=ledger or Ledger(),
            clock=loop.time,
        )
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(version.run())
        try:
            yield version
        finally:
            await version.close()
    assert not stage.living


async def ask(version: PredictionVersion, text: str, **fields: Any) -> str:
    """The answer's pieces, joined by commas."""
    async with aclosing(version.predict(request(text, **fields))) as pieces:
        return ",".join([piece.body.decode() async for piece in pieces])


async def outcome(version: PredictionVersion, text: str, **fields: Any) -> str:
    """The answer, or the name of the error."""
    try:
        return await ask(version, text, **fields)
    except ArgosyError as error:
        return type(error).__name__


async def outcomes(version: PredictionVersion, *texts: str) -> list[str]:
    """All asked at once, in this order."""
    return [*await asyncio.gather(*(outcome(version, text) for text in texts))]
