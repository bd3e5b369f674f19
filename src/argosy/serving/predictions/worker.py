"""A seat among a version's workers: its predictor is started, kept busy, watched, and replaced when it fails.

One task per seat. It ends when the seat is given up (scaling down, unregistering): the running call is finished first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from argosy.core.errors import ArgosyError, EngineError
from argosy.core.interfaces import ConcurrentCalls, EndReports, Predictor
from argosy.core.model_archive import VersionSettings
from argosy.core.prediction_status import WorkerPhase, WorkerStatus
from argosy.serving.predictions.call import Call, ends_worker
from argosy.serving.predictions.job import Job
from argosy.serving.predictions.job_queue import JobQueue, Taker
from argosy.serving.predictions.meters import PredictionMeters
from argosy.serving.predictions.restarts import restart_wait_seconds

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0


class Workplace(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers of one version share.

    label: `name/version`, for the log. on_change: a worker's phase changed. on_call: a call of so many jobs took so
    long and succeeded.
    """

    label: str
    queue: JobQueue
    settings: Callable[[], VersionSettings]
    make_predictor: Callable[[int], Predictor]
    meters: PredictionMeters
    clock: Callable[[], float]
    on_change: Callable[[], None]
    on_call: Callable[[int, float], None]
    calls: dict[Job, Call]


class Worker:
    """One seat. lost_at: when it ceased to be ready; None = it is ready. retry_at: when a failed one tries again.

    error: why it is not ready. failed_starts: since the seat was made.
    """

    def __init__(self, seat: int, workplace: Workplace) -> None:
        self.seat = seat
        self.phase = WorkerPhase.STARTING
        self.error: ArgosyError | None = None
        self.retry_at: float | None = None
        self.lost_at: float | None = workplace.clock()
        self.predictor: Predictor | None = None
        self.is_leaving = False
        self.failed_starts = 0
        self._workplace = workplace
        self._takers: list[Taker] = []
        self._failures = 0
        self._starts = 0
        self._left = asyncio.Event()

    def status(self) -> WorkerStatus:
        """What is known of it now. Never blocks."""
        status = WorkerStatus(
            seat=self.seat,
            phase=self.phase,
            reason=self.error.message if self.error is not None and self.phase is WorkerPhase.FAILED else "",
            restarts=max(self._starts - 1, 0),
        )
        if self.predictor is None:
            return status
        facts = self.predictor.facts()
        return msgspec.structs.replace(
            status, pid=facts.pid, started_at=facts.started_at, memory_bytes=facts.memory_bytes
        )

    def leave(self) -> None:
        """Give the seat up once the running calls are answered. Never blocks."""
        self.is_leaving = True
        if self.phase is WorkerPhase.READY:
            self._enter(WorkerPhase.DRAINING)
        self._left.set()
        for taker in self._takers:
            taker.is_leaving = True
            taker.wake()

    async def run(self) -> None:
        """Live until the seat is given up. Cancels: the predictor is closed; its jobs get an ending."""
        while not self.is_leaving:
            try:
                error = await self._live()
            except ArgosyError as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001  # boundary: a broken predictor must not end the server
                error = EngineError(
                    f"worker {self.seat} of {self._workplace.label} failed: {type(failure).__name__}: {failure}"
                )
            if error is None:
                return
            await self._wait_for_retry(error)

    async def _live(self) -> ArgosyError | None:
        """One predictor from start to end; why it ended, None if the seat was given up."""
        self._enter(WorkerPhase.STARTING)
        self._starts += 1
        place = self._workplace
        predictor = place.make_predictor(self.seat)
        try:
            predictor.report_metrics(place.meters.handler_metric)
            try:
                await self._start(predictor)
            except Exception:
                self.failed_starts += 1
                raise
            if self.is_leaving and not place.queue.is_emptying:
                return None
            self.predictor = predictor
            self._enter(WorkerPhase.DRAINING if self.is_leaving else WorkerPhase.READY)
            return await self._serve(predictor)
        finally:
            self.predictor = None
            self._takers = []
            await _close(predictor, place.label)

    async def _start(self, predictor: Predictor) -> None:
        began = self._workplace.clock()
        seconds = self._workplace.settings().startup_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await predictor.start()
        except TimeoutError:
            raise EngineError(
                f"worker {self.seat} of {self._workplace.label} was not ready within {seconds:g} s: "
                "raise the startup timeout, or see its log for what it waits for"
            ) from None
        self._workplace.meters.worker_loaded(self.seat, self._workplace.clock() - began)

    async def _serve(self, predictor: Predictor) -> ArgosyError | None:
        """Make calls until the predictor fails or the seat is given up."""
        count = predictor.max_concurrent_calls if isinstance(predictor, ConcurrentCalls) else 1
        self._takers = [Taker(self) for _ in range(count)]
        for taker in self._takers:
            taker.is_leaving = self.is_leaving
        over: asyncio.Future[ArgosyError | None] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._make_calls(taker, predictor, over)) for taker in self._takers]
            if isinstance(predictor, EndReports):
                tasks.append(group.create_task(_watch(predictor, over)))
            try:
                return await over
            finally:
                for task in tasks:
                    task.cancel()

    async def _make_calls(self, taker: Taker, predictor: Predictor, over: asyncio.Future[ArgosyError | None]) -> None:
        queue = self._workplace.queue
        while jobs := await queue.take(taker):
            try:
                error = await self._call(jobs, predictor)
            finally:
                queue.done(len(jobs))
            if error is None:
                self._failures = 0
            elif ends_worker(error):
                if not over.done():
                    over.set_result(error)
                return
        self._takers.remove(taker)
        if not self._takers and not over.done():
            over.set_result(None)

    async def _call(self, jobs: list[Job], predictor: Predictor) -> ArgosyError | None:
        place = self._workplace
        began = place.clock()
        call = Call(jobs, place.clock)
        for job in jobs:
            job.started = began
            if isinstance(predictor, ConcurrentCalls):
                place.calls[job] = call
        error: ArgosyError | None = EngineError("the server ended before the request was answered: send it again")
        try:
            error = await call.run(predictor, place.settings().response_timeout_seconds)
        finally:
            for job in jobs:
                place.calls.pop(job, None)
            if error is not None:
                place.queue.push_front(call.settle(error))
        if error is None:
            seconds = place.clock() - began
            place.meters.batch(len(jobs), seconds)
            place.on_call(len(jobs), seconds)
        return error

    async def _wait_for_retry(self, error: ArgosyError) -> None:
        self._failures += 1
        self.error = error
        seconds = restart_wait_seconds(self._failures)
        self.retry_at = self._workplace.clock() + seconds
        label = self._workplace.label
        logger.warning("worker %d of %s failed: %s; next start in %g s", self.seat, label, error.message, seconds)
        self._enter(WorkerPhase.FAILED)
        try:
            async with asyncio.timeout(seconds):
                await self._left.wait()
        except TimeoutError:
            pass
        self.retry_at = None

    def _enter(self, phase: WorkerPhase) -> None:
        self.phase = phase
        if phase is WorkerPhase.READY:
            self.lost_at = None
            self.error = None
        elif self.lost_at is None:
            self.lost_at = self._workplace.clock()
        self._workplace.on_change()


async def _watch(predictor: EndReports, over: asyncio.Future[ArgosyError | None]) -> None:
    """Notice the end of a predictor that nobody calls. Cancels: stops watching."""
    error = await predictor.ended()
    if not over.done():
        over.set_result(error)


async def _close(predictor: Predictor, label: str) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await predictor.close()
    except Exception:  # boundary: a predictor that cannot be closed must not keep its seat
        logger.exception("a worker of %s could not be closed", label)
