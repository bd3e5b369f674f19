"""One version of a model: a door, a queue, a crew of workers that empties it, and what may be asked of them.

`run` is its life and owns every task; whoever registers the version runs it in a task group. `predict` may be called
as soon as it is registered: requests wait while workers start, and are refused with a reason when none will come soon.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from argosy.core.interfaces import Predictor
from argosy.core.model_archive import ModelArchive, VersionSettings
from argosy.core.prediction import Prediction, PredictRequest
from argosy.core.prediction_status import VersionStatus, WorkerPhase
from argosy.serving.predictions.crew import Crew
from argosy.serving.predictions.door import Door
from argosy.serving.predictions.job_queue import JobQueue
from argosy.serving.predictions.meters import NO_METERS, PredictionMeters
from argosy.serving.predictions.planners import make_planner
from argosy.serving.predictions.worker import Workplace


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is made of. next_seat: numbers workers within the whole server. clock: monotonic, in seconds."""

    name: str
    archive: ModelArchive
    settings: VersionSettings
    make_predictor: Callable[[int], Predictor]
    next_seat: Callable[[], int]
    meters: PredictionMeters = NO_METERS
    is_loaded_at_startup: bool = False
    clock: Callable[[], float] = time.monotonic


class PredictionVersion:
    """One version of one model. settings: as they are now, scaling included. meters: what it reports to."""

    def __init__(self, birth: Birth) -> None:
        self.name = birth.name
        self.archive = birth.archive
        self.version = birth.archive.manifest.model.model_version
        self.settings = birth.settings
        self.is_loaded_at_startup = birth.is_loaded_at_startup
        self.meters = birth.meters
        self._clock = birth.clock
        self._planner = make_planner(birth.settings)
        self._queue = JobQueue(self._planner, birth.settings.sequences, birth.clock)
        label = f"{self.name}/{self.version}"
        workplace = Workplace(
            label=label,
            queue=self._queue,
            settings=birth.settings,
            make_predictor=birth.make_predictor,
            meters=birth.meters,
            clock=birth.clock,
            on_change=self._note_change,
            on_call=self._note_call,
        )
        self._crew = Crew(workplace, birth.settings.min_workers, birth.next_seat, self._refuse_waiting)
        self._door = Door(label, birth.settings, self._queue, self._crew, birth.meters, birth.clock)
        self._ended = asyncio.Event()

    @property
    def num_queued(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """Requests in calls now."""
        return self._queue.num_running

    @property
    def is_healthy(self) -> bool:
        """Whether as many workers live as shall, lost ones counted until the retry time is over."""
        return self._crew.is_healthy(self._clock() - self.settings.retry_timeout_seconds)

    async def predict(self, request: PredictRequest) -> AsyncGenerator[Prediction]:
        """The answer, piece by piece; the last one `is_last`, `index` always 0.

        Cancels: closing the generator takes a waiting request out of the queue at once; a running one is not waited
        for. Raises: QueueFull, NoWorker at once; DeadlineExceeded after client_timeout_seconds; HandlerError,
        OutOfResources, WorkerDied.
        """
        job = self._door.enter(request)
        if job.request.sequence_id:
            self._crew.note_change()
        try:
            while True:
                piece = await job.next_piece()
                yield piece
                if piece.is_last:
                    return
        finally:
            self._door.leave(job)

    async def describe(self) -> Any:
        """What the handler says of itself, as JSON values; None if nothing, or no worker is ready.

        Cancels: the question is taken back. Raises: as predict.
        """
        if not any(worker.phase is WorkerPhase.READY for worker in self._crew.statuses()):
            return None
        question = self._door.ask()
        try:
            await question.next_piece()
            return question.answer
        finally:
            self._door.leave(question)

    def status(self, *, is_default: bool = False) -> VersionStatus:
        """How it is doing now. Never blocks."""
        return VersionStatus(
            name=self.name,
            version=self.version,
            url=self.archive.url,
            runtime=self.archive.manifest.runtime,
            is_default=is_default,
            is_loaded_at_startup=self.is_loaded_at_startup,
            is_healthy=self.is_healthy,
            settings=self.settings,
            batch_size=self._planner.batch_size,
            max_batch_delay_seconds=self._planner.delay_seconds,
            num_queued=self.num_queued,
            num_running=self.num_running,
            workers=self._crew.statuses(),
        )

    def scale(self, min_workers: int, max_workers: int) -> None:
        """Let so many workers run from now on. Surplus ones finish what they do. Never blocks."""
        self.settings = msgspec.structs.replace(self.settings, min_workers=min_workers, max_workers=max_workers)
        self._crew.scale(min_workers)

    async def wait_scaled(self, timeout_seconds: float) -> bool:
        """Whether, within the time, exactly as many workers are ready as shall be. Raises: the error of a failed start.

        Cancels: scaling goes on.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._crew.wait_complete()
        except TimeoutError:
            return False
        return True

    async def drain(self, timeout_seconds: float) -> bool:
        """Take no more requests and end the workers once those there are answered; whether that was done in time.

        Cancels: no request is taken any more, but the workers live on until `close`.
        """
        self._door.shut()
        self._crew.end()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def abort(self) -> None:
        """End it now: requests that are not answered yet get an error, workers are closed. Never blocks."""
        self._door.shut()
        self._door.refuse_all()
        self._crew.abort()

    async def close(self) -> None:
        """Abort, and wait until every worker is closed. Idempotent."""
        self.abort()
        await self._ended.wait()

    async def run(self) -> None:
        """Live until drained or closed. Cancels: everything is closed at once, and every request gets its ending."""
        try:
            await self._crew.run()
        finally:
            self._door.shut()
            self._door.end_all()
            self._ended.set()

    def _note_change(self) -> None:
        self._crew.note_change()

    def _refuse_waiting(self) -> None:
        self._door.refuse_waiting()

    def _note_call(self, size: int, seconds: float) -> None:
        self._planner.finished(size, seconds, self._queue.num_running + len(self._queue))
