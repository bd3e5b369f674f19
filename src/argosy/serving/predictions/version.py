"""One version of a model: a queue, the workers that empty it, and what may be asked of both.

`run` is its life and owns every task; whoever registers the version runs it in a task group. `predict` may be called
as soon as it is registered: requests wait while workers start, and are refused with a reason when none will come soon.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from argosy.core.errors import ArgosyError, DeadlineExceeded, NoWorker, QueueFull
from argosy.core.interfaces import Predictor
from argosy.core.model_archive import ModelArchive, VersionSettings
from argosy.core.prediction import Prediction, PredictRequest
from argosy.core.prediction_status import VersionStatus, WorkerPhase
from argosy.serving.admission_policy import ServiceRate, retry_after_seconds
from argosy.serving.predictions.call import Call
from argosy.serving.predictions.job import Job
from argosy.serving.predictions.job_queue import JobQueue
from argosy.serving.predictions.meters import NO_METERS, PredictionMeters
from argosy.serving.predictions.planners import make_planner
from argosy.serving.predictions.restarts import LONG_WAIT_SECONDS
from argosy.serving.predictions.worker import Worker, Workplace

_LEAVING_FIRST = (WorkerPhase.FAILED, WorkerPhase.STARTING, WorkerPhase.DRAINING, WorkerPhase.READY)


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is made of. next_seat: numbers workers within the whole server."""

    name: str
    archive: ModelArchive
    settings: VersionSettings
    make_predictor: Callable[[int], Predictor]
    next_seat: Callable[[], int]
    meters: PredictionMeters = NO_METERS
    is_loaded_at_startup: bool = False
    clock: Callable[[], float] = time.monotonic


class PredictionVersion:
    """One version of one model. `clock` is monotonic, in seconds."""

    def __init__(self, birth: Birth) -> None:
        self.name = birth.name
        self.archive = birth.archive
        self.version = birth.archive.manifest.model.model_version
        self.settings = birth.settings
        self._birth = birth
        self._clock = birth.clock
        self._meters = birth.meters
        self._planner = make_planner(birth.settings)
        self._queue = JobQueue(birth.settings.job_queue_size, self._planner, birth.clock)
        self._workers: dict[Worker, asyncio.Task[None]] = {}
        self._calls: dict[Job, Call] = {}
        self._rate = ServiceRate()
        self._changed = asyncio.Event()
        self._observers: list[asyncio.Future[None]] = []
        self._target = birth.settings.min_workers
        self._is_closing = False
        self._was_ready = False
        self._ended = asyncio.Event()
        self._workplace = Workplace(
            label=f"{self.name}/{self.version}",
            queue=self._queue,
            settings=lambda: self.settings,
            make_predictor=birth.make_predictor,
            meters=birth.meters,
            clock=birth.clock,
            on_change=self._note_change,
            on_call=self._note_call,
            calls=self._calls,
        )

    @property
    def num_queued(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """Requests in calls now."""
        return self._queue.num_running

    async def predict(self, request: PredictRequest) -> AsyncGenerator[Prediction]:
        """The answer, piece by piece; the last one `is_last`, `index` always 0.

        Cancels: closing the generator takes a waiting request out of the queue at once; a running one is not waited
        for. Raises: QueueFull, NoWorker at once; DeadlineExceeded after client_timeout_seconds; HandlerError,
        OutOfResources, WorkerDied.
        """
        self._meters.arrived(request)
        job = self._enter(request)
        try:
            while True:
                piece = await job.next_piece()
                yield piece
                if piece.is_last:
                    return
        finally:
            self._leave(job)

    async def describe(self) -> Any:
        """What the handler says of itself; None if it says nothing, or no worker is ready. Raises: as predict."""
        for worker in self._workers:
            if worker.phase is WorkerPhase.READY and worker.predictor is not None:
                return await worker.predictor.describe()
        return None

    def status(self, *, is_default: bool = False) -> VersionStatus:
        """How it is doing now. Never blocks."""
        return VersionStatus(
            name=self.name,
            version=self.version,
            url=self.archive.url,
            runtime=self.archive.manifest.runtime,
            is_default=is_default,
            is_loaded_at_startup=self._birth.is_loaded_at_startup,
            is_healthy=self.is_healthy,
            settings=self.settings,
            batch_size=self._planner.batch_size,
            max_batch_delay_seconds=self._planner.delay_seconds,
            num_queued=self.num_queued,
            num_running=self.num_running,
            workers=tuple(worker.status() for worker in self._workers),
        )

    @property
    def is_healthy(self) -> bool:
        """Whether as many workers live as shall, lost ones counted until the retry time is over.

        A version whose workers never were ready is not healthy: it has yet to show that it can start.
        """
        if not self._was_ready:
            return self._target == 0
        since = self._clock() - self.settings.retry_timeout_seconds
        alive = sum(worker.lost_at is None or worker.lost_at > since for worker in self._staying())
        return alive >= self._target

    def scale(self, min_workers: int, max_workers: int) -> None:
        """Let so many workers run from now on. Surplus ones finish what they do. Never blocks."""
        self.settings = msgspec.structs.replace(self.settings, min_workers=min_workers, max_workers=max_workers)
        self._target = min_workers
        self._changed.set()

    async def wait_scaled(self, timeout_seconds: float) -> bool:
        """Whether, within the time, exactly as many workers are ready as shall be. Raises: the error of a failed start.

        Cancels: scaling goes on.
        """
        known = {worker: worker.failed_starts for worker in self._workers}
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self._is_scaled():
                    for worker in self._staying():
                        if worker.error is not None and worker.failed_starts > known.get(worker, 0):
                            raise worker.error
                    await self._next_change()
        except TimeoutError:
            return False
        return True

    async def drain(self, timeout_seconds: float) -> bool:
        """Take no more requests and end the workers once those there are answered; whether that was done in time.

        Cancels: no request is taken any more, but the workers live on until `close`.
        """
        self._is_closing = True
        self.scale(0, self.settings.max_workers)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def abort(self) -> None:
        """End it now: requests that are not answered yet get an error, workers are closed. Never blocks."""
        self._is_closing = True
        self._target = 0
        self._queue.fail_all(_gone(self._workplace.label))
        for worker, task in self._workers.items():
            worker.is_leaving = True
            task.cancel()
        self._changed.set()

    async def close(self) -> None:
        """Abort, and wait until every worker is closed. Idempotent."""
        self.abort()
        await self._ended.wait()

    async def run(self) -> None:
        """Keep as many workers as shall be, until drained or closed. Cancels: everything is closed at once."""
        try:
            async with asyncio.TaskGroup() as group:
                while not (self._is_closing and not self._workers):
                    self._changed.clear()
                    self._reconcile(group)
                    if not (self._is_closing and not self._workers):
                        await self._changed.wait()
        finally:
            self._is_closing = True
            self._queue.fail_all(_gone(self._workplace.label))
            self._ended.set()

    def _reconcile(self, group: asyncio.TaskGroup) -> None:
        staying = self._staying()
        self._queue.is_emptying = self._target == 0
        for _ in range(self._target - len(staying)):
            worker = Worker(self._birth.next_seat(), self._workplace)
            self._workers[worker] = group.create_task(worker.run(), name=f"worker {worker.seat}")
            self._workers[worker].add_done_callback(functools.partial(self._forget, worker))
        surplus = len(staying) - self._target
        if surplus > 0:
            ordered = sorted(staying, key=lambda worker: (_LEAVING_FIRST.index(worker.phase), -worker.seat))
            for worker in ordered[:surplus]:
                self._dismiss(worker)
        self._refuse_waiting()

    def _dismiss(self, worker: Worker) -> None:
        is_useless = worker.phase in (WorkerPhase.STARTING, WorkerPhase.FAILED)
        worker.leave()
        if is_useless:
            self._workers[worker].cancel()

    def _forget(self, worker: Worker, _: asyncio.Task[None]) -> None:
        del self._workers[worker]
        self._note_change()

    def _staying(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.is_leaving]

    def _is_scaled(self) -> bool:
        ready = sum(worker.phase is WorkerPhase.READY for worker in self._workers)
        return ready == self._target == len(self._workers)

    async def _next_change(self) -> None:
        observer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._observers.append(observer)
        await observer

    def _note_change(self) -> None:
        ready = sum(worker.phase is WorkerPhase.READY for worker in self._workers)
        self._was_ready = self._was_ready or (ready > 0 and ready >= self._target)
        self._changed.set()
        observers, self._observers = self._observers, []
        for observer in observers:
            if not observer.done():
                observer.set_result(None)

    def _note_call(self, size: int, seconds: float) -> None:
        self._planner.finished(size, seconds, self._queue.num_running + len(self._queue))

    def _enter(self, request: PredictRequest) -> Job:
        """Let the request wait. Raises: QueueFull, NoWorker."""
        error = self._refusal()
        now = self._clock()
        if error is not None:
            self._meters.ended(request, 0.0, 0.0, error)
            raise error
        job = Job(request, now)
        if (seconds := self.settings.client_timeout_seconds) is not None:
            job.timer = asyncio.get_running_loop().call_later(seconds, self._expire, job, seconds)
        self._queue.push(job)
        return job

    def _leave(self, job: Job) -> None:
        now = self._clock()
        if job.ending is None:
            job.leave(now)
            self._withdraw(job)
        elif job.started is not None:
            self._rate.finished(now)
        self._meters.ended(job.request, job.queue_seconds, job.inference_seconds, job.error)

    def _expire(self, job: Job, seconds: float) -> None:
        error = DeadlineExceeded(
            f"no answer within {seconds:g} s, the client timeout of {self._workplace.label}: try later, or raise it"
        )
        job.fail(error, self._clock())
        self._withdraw(job)

    def _withdraw(self, job: Job) -> None:
        self._queue.remove(job)
        if (call := self._calls.get(job)) is not None:
            call.left()

    def _refusal(self) -> ArgosyError | None:
        """Why no request can be taken now; None = one can."""
        if self._is_closing:
            return _gone(self._workplace.label)
        wait = self._worker_wait_seconds()
        if wait is None or wait > LONG_WAIT_SECONDS:
            return self._no_worker(wait)
        if len(self._queue) >= self._queue.capacity:
            return self._full(f"{len(self._queue)} requests wait already, as many as its queue holds")
        if self.settings.use_job_ticket and not self._queue.num_idle:
            return self._full("no worker is idle, and it hands out job tickets to idle workers only")
        return None

    def _worker_wait_seconds(self) -> float | None:
        """How long until a worker works or tries to start: 0 mostly; None if there is none."""
        soonest = None
        for worker in self._workers:
            if worker.retry_at is None:
                return 0.0
            wait = worker.retry_at - self._clock()
            soonest = wait if soonest is None else min(soonest, wait)
        return soonest if soonest is not None or not self._target else 0.0

    def _no_worker(self, wait: float | None) -> NoWorker:
        label = self._workplace.label
        if wait is None:
            return NoWorker(
                f"model {label} has no worker: scale it to at least one worker", retry_after_seconds=LONG_WAIT_SECONDS
            )
        reasons = {worker.error.message for worker in self._workers if worker.error is not None}
        return NoWorker(
            f"no worker of model {label} can be started ({'; '.join(sorted(reasons))}): next try in {wait:.0f} s",
            retry_after_seconds=max(wait, 1.0),
        )

    def _full(self, detail: str) -> QueueFull:
        seconds = retry_after_seconds(len(self._queue), self._rate.per_second())
        return QueueFull(
            f"model {self._workplace.label} is busy: {detail}; try again in {seconds:.0f} s",
            retry_after_seconds=seconds,
        )

    def _refuse_waiting(self) -> None:
        """Nobody is kept waiting for workers that will not come soon."""
        wait = self._worker_wait_seconds()
        if len(self._queue) and (wait is None or wait > LONG_WAIT_SECONDS):
            self._queue.fail_all(self._no_worker(wait))


def _gone(label: str) -> NoWorker:
    return NoWorker(f"model {label} is being unregistered and takes no more requests", retry_after_seconds=1.0)
