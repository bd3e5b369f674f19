"""A seat among a version's workers: its predictor is started, kept busy, watched, and replaced when it fails.

One task per seat. It ends when the seat is given up (scaling down, unregistering): the running call is finished first.
A predictor that died, hung or ran out of memory is closed, and another one started in its place, at once the first
time and after longer and longer waits as long as none of its calls succeeds (F-03, F-04, F-05).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec

from argosy.core.errors import ArgosyError, EngineError, NotBegun, WorkerDied
from argosy.core.interfaces import CallsAhead, ConcurrentCalls, EndReports, Predictor
from argosy.core.model_archive import VersionSettings
from argosy.core.prediction_status import WorkerPhase, WorkerStatus
from argosy.serving.predictions.call import Call, ends_worker
from argosy.serving.predictions.guard import Guard
from argosy.serving.predictions.job import Job
from argosy.serving.predictions.job_queue import JobQueue
from argosy.serving.predictions.meters import PredictionMeters
from argosy.serving.predictions.restarts import restart_wait_seconds
from argosy.serving.predictions.takers import Desk, Taker

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0
_LAST_WORDS_SECONDS = 0.5  # for open calls to hear what became of them, once their predictor is closed.
_REPORT_SECONDS = 1.0  # for a predictor that reports its own end to do so.
_Over = asyncio.Future[ArgosyError | None]


class Workplace(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers of one version share. label: `name/version`, for the log.

    on_change: a worker's phase changed. on_call: a call of so many jobs took so long and succeeded.
    """

    label: str
    queue: JobQueue
    settings: VersionSettings
    make_predictor: Callable[[int], Predictor]
    meters: PredictionMeters
    clock: Callable[[], float]
    on_change: Callable[[], None]
    on_call: Callable[[int, float], None]


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
        self.is_leaving = False
        self.failed_starts = 0
        self._workplace = workplace
        self._predictor: Predictor | None = None
        self._takers: list[Taker] = []
        self._calls: dict[Job, Call] = {}  # those that can be ended before their time
        self._keeps_calls = False
        self._was_crowded: bool | None = None  # when the predictor died; None = it lives
        self._last_end = 0.0
        self._failures = 0
        self._starts = 0

    def status(self) -> WorkerStatus:
        """What is known of it now. Never blocks."""
        status = WorkerStatus(
            seat=self.seat,
            phase=self.phase,
            reason=self.error.message if self.error is not None else "",
            restarts=max(self._starts - 1, 0),
        )
        if self._predictor is None:
            return status
        facts = self._predictor.facts()
        return msgspec.structs.replace(
            status, pid=facts.pid, started_at=facts.started_at, memory_bytes=facts.memory_bytes
        )

    def leave(self) -> None:
        """Give the seat up once the running calls are answered. Never blocks."""
        self.is_leaving = True
        self._workplace.queue.worker_leaves(self)
        if self.phase is WorkerPhase.READY:
            self._enter(WorkerPhase.DRAINING)
        for taker in self._takers:
            taker.is_leaving = True
            taker.wake()

    def withdraw(self, job: Job) -> None:
        """Nobody wants this job's answer any more. A call that can be ended is, when that holds for all its jobs."""
        if (call := self._calls.get(job)) is not None:
            call.left()

    async def run(self) -> None:
        """Live until the seat is given up. Cancels: the predictor is closed; its jobs get an ending."""
        while (error := await self._live()) is not None:
            if self.is_leaving and not (self._workplace.queue.is_emptying and len(self._workplace.queue)):
                return
            await self._wait_for_retry(error)

    async def _live(self) -> ArgosyError | None:
        """One predictor from start to end; why it ended, None if the seat was given up."""
        self._enter(WorkerPhase.STARTING)
        self._starts += 1
        error: ArgosyError | None = None
        try:
            async with contextlib.AsyncExitStack() as stack:
                predictor = self._workplace.make_predictor(self.seat)
                stack.push_async_callback(_close, predictor, self._workplace.label)
                await self._start(predictor)
                error = await self._serve(predictor)
        except ArgosyError as failure:
            error = failure
        except Exception as failure:  # boundary: a broken predictor must not end the server
            logger.exception("worker %d of %s failed", self.seat, self._workplace.label)
            error = EngineError(
                f"worker {self.seat} of {self._workplace.label} failed: {type(failure).__name__}: {failure}"
            )
        finally:
            self._predictor = None
            self._takers = []
            self._workplace.queue.worker_gone(self, error)
        return error

    async def _start(self, predictor: Predictor) -> None:
        place = self._workplace
        began = place.clock()
        seconds = place.settings.startup_timeout_seconds
        predictor.report_metrics(place.meters.handler_metric)
        try:
            async with asyncio.timeout(seconds) as limit:
                await predictor.start()
        except Exception as error:
            self.failed_starts += 1
            if not limit.expired():
                raise
            raise EngineError(
                f"worker {self.seat} of {place.label} was not ready within {seconds:g} s: raise the startup timeout, "
                "or see the log for what it waits for"
            ) from error
        place.meters.worker_loaded(self.seat, place.clock() - began)

    async def _serve(self, predictor: Predictor) -> ArgosyError | None:
        """Make calls until the predictor fails or the seat is given up."""
        self._predictor = predictor
        self._keeps_calls = isinstance(predictor, ConcurrentCalls)
        self._was_crowded = None
        self._takers = self._make_takers(predictor)
        self._enter(WorkerPhase.DRAINING if self.is_leaving else WorkerPhase.READY)
        over: _Over = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._make_calls(taker, predictor, over)) for taker in self._takers]
            watch = group.create_task(_watch(predictor, over)) if isinstance(predictor, EndReports) else None
            try:
                error = await over
                if error is not None:
                    await self._give_up(predictor, tasks)
                return error
            finally:
                for task in [*tasks, *([watch] if watch is not None else [])]:
                    task.cancel()

    def _make_takers(self, predictor: Predictor) -> list[Taker]:
        beside = predictor.max_concurrent_calls if isinstance(predictor, ConcurrentCalls) else 1
        ahead = predictor.max_calls_ahead if isinstance(predictor, CallsAhead) else 0
        desk = Desk(beside)
        return [
            Taker(self, desk if ahead else Desk(), is_ahead=number >= beside, is_leaving=self.is_leaving)
            for number in range(beside + ahead)
        ]

    async def _give_up(self, predictor: Predictor, tasks: list[asyncio.Task[None]]) -> None:
        """Close the predictor first: it knows which of its calls it had begun, and tells each of them."""
        self._stop_takers()
        await _close(predictor, self._workplace.label)
        await asyncio.wait(tasks, timeout=_LAST_WORDS_SECONDS)

    def _stop_takers(self) -> None:
        """Nothing more is given to a predictor that died."""
        for taker in self._takers:
            taker.is_over = True
            taker.wake()

    async def _make_calls(self, taker: Taker, predictor: Predictor, over: _Over) -> None:
        queue = self._workplace.queue
        guard = Guard()
        try:
            while jobs := await queue.take(taker):
                try:
                    error = await self._call(jobs, taker, guard, predictor, over)
                finally:
                    self._leave_none(jobs)
                    queue.done(jobs, taker)
                if error is None:
                    self._failures = 0
                elif ends_worker(error):
                    # One that was not begun does not know why: the begun one does, or the predictor's own report.
                    is_told = isinstance(error, NotBegun) and isinstance(predictor, EndReports)
                    if not is_told:
                        _settle(over, error)
                    else:
                        asyncio.get_running_loop().call_later(_REPORT_SECONDS, _settle, over, error)
                    return
        finally:
            guard.close()
        if taker in self._takers:
            self._takers.remove(taker)
        if not self._takers:
            _settle(over, None)

    async def _call(
        self, jobs: list[Job], taker: Taker, guard: Guard, predictor: Predictor, over: _Over
    ) -> ArgosyError | None:
        place = self._workplace
        began = place.clock()
        call = Call(jobs, guard, place.clock)
        for job in jobs:
            job.started = began
            if self._keeps_calls:
                self._calls[job] = call
        # A call given ahead may have to wait for each one before it as long as that may take.
        seconds = place.settings.response_timeout_seconds * taker.desk.num_open
        error: ArgosyError | None = None
        try:
            error = await call.run(predictor, seconds)
        except asyncio.CancelledError:
            error = (over.result() if over.done() and not over.cancelled() else None) or _cut_off()
            raise
        finally:
            if self._keeps_calls:
                for job in jobs:
                    self._calls.pop(job, None)
            if error is not None:
                self._settle_jobs(call, error, taker)
        if error is None and not call.is_abandoned:
            self._note_call(len(jobs), began)
        return error

    def _leave_none(self, jobs: list[Job]) -> None:
        """Whatever happened to a call, also in our own code: each of its jobs has an ending now, or waits again."""
        for job in jobs:
            if job.ending is None and not self._workplace.queue.holds(job):
                job.fail(_cut_off(), job.arrived)

    def _settle_jobs(self, call: Call, error: ArgosyError, taker: Taker) -> None:
        """Let the jobs of a failed call go back to the queue, or end."""
        is_death = ends_worker(error)
        if is_death and self._was_crowded is None:
            self._was_crowded = taker.desk.num_open > 1
            self._stop_takers()
        self._workplace.queue.push_front(call.settle(error, was_crowded=is_death and bool(self._was_crowded)))

    def _note_call(self, size: int, began: float) -> None:
        """Report how long a call took; one that was given ahead began when the one before it ended."""
        place = self._workplace
        now = place.clock()
        seconds = now - (began if self._keeps_calls else max(began, self._last_end))
        self._last_end = now
        place.queue.note_call(seconds)
        place.meters.batch(size, seconds)
        place.on_call(size, seconds)

    async def _wait_for_retry(self, error: ArgosyError) -> None:
        self._failures += 1
        self.error = error
        seconds = restart_wait_seconds(self._failures)
        self.retry_at = self._workplace.clock() + seconds
        label = self._workplace.label
        logger.warning("worker %d of %s failed: %s; it starts again in %g s", self.seat, label, error.message, seconds)
        self._enter(WorkerPhase.FAILED)
        await asyncio.sleep(seconds)
        self.retry_at = None

    def _enter(self, phase: WorkerPhase) -> None:
        self.phase = phase
        if phase is WorkerPhase.READY:
            self.lost_at = None
            self.error = None
        elif self.lost_at is None:
            self.lost_at = self._workplace.clock()
        self._workplace.on_change()


async def _watch(predictor: EndReports, over: _Over) -> None:
    """Notice the end of a predictor that nobody calls. Cancels: stops watching."""
    _settle(over, await predictor.ended())


def _settle(over: _Over, error: ArgosyError | None) -> None:
    if not over.done():
        over.set_result(error)


def _cut_off() -> WorkerDied:
    return WorkerDied("the model's worker was ended before it had answered: send the request again")


async def _close(predictor: Predictor, label: str) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await predictor.close()
    except Exception:  # boundary: a predictor that cannot be closed must not keep its seat
        logger.exception("a worker of %s could not be closed", label)
