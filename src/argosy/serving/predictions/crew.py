"""The workers of one version: as many as shall be, started, dismissed and counted."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from argosy.core.prediction_status import WorkerPhase, WorkerStatus
from argosy.serving.predictions.job import Job
from argosy.serving.predictions.worker import Worker, Workplace

_LEAVING_FIRST = (WorkerPhase.FAILED, WorkerPhase.STARTING, WorkerPhase.READY, WorkerPhase.DRAINING)


class Crew:
    """target: how many workers shall be. `run` is its life and owns their tasks.

    on_change: called when a worker's phase changes. was_ready: once, all that were wanted were ready.
    """

    def __init__(
        self, workplace: Workplace, target: int, next_seat: Callable[[], int], on_change: Callable[[], None]
    ) -> None:
        self.target = target
        self.was_ready = False
        self._workplace = workplace
        self._next_seat = next_seat
        self._on_change = on_change
        self._workers: dict[Worker, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._observers: list[asyncio.Future[None]] = []
        self._is_ending = False

    async def run(self) -> None:
        """Keep as many workers as shall be, until told to end and the last has left. Cancels: all are closed."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                self._reconcile(group)
                if self._is_ending and not self._workers:
                    return
                await self._wait()

    def scale(self, target: int) -> None:
        """Let so many be from now on. Surplus ones finish what they do. Never blocks."""
        self.target = target
        self._workplace.queue.is_emptying = target == 0
        self.note_change()

    def end(self) -> None:
        """Let all of them leave once nothing waits any more, and `run` return then. Never blocks."""
        self._is_ending = True
        self.scale(0)

    def abort(self) -> None:
        """End them now; the jobs in their calls get an error. Never blocks."""
        self.end()
        for worker, task in self._workers.items():
            worker.leave()
            task.cancel()

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """Each worker as it is now. Never blocks."""
        return tuple(worker.status() for worker in self._workers)

    def withdraw(self, job: Job) -> None:
        """Nobody wants this job's answer any more."""
        for worker in self._workers:
            worker.withdraw(job)

    def is_healthy(self, lost_before: float) -> bool:
        """Whether as many live as shall; one that was lost after that time counts.

        A crew that never was complete is not healthy: it has yet to show that it can start.
        """
        if not self.was_ready:
            return self.target == 0
        alive = sum(worker.lost_at is None or worker.lost_at > lost_before for worker in self._staying())
        return alive >= self.target

    @property
    def is_complete(self) -> bool:
        """Whether exactly as many are there as shall be, all of them ready."""
        return self._num_ready() == self.target == len(self._workers)

    def wait_seconds(self) -> float | None:
        """How long until a worker works, or tries to start: 0 mostly; None = there is none, and none shall be."""
        soonest: float | None = None
        for worker in self._workers:  # on the way of every request: the first one mostly decides
            if worker.retry_at is None:
                return 0.0
            soonest = worker.retry_at if soonest is None else min(soonest, worker.retry_at)
        if len(self._staying()) < self.target:
            return 0.0
        return None if soonest is None else max(soonest - self._workplace.clock(), 0.0)

    def trouble(self) -> str:
        """Why those that failed have failed, in a line."""
        return "; ".join(sorted({worker.error.message for worker in self._workers if worker.error is not None}))

    async def wait_complete(self) -> None:
        """Return once it is complete. Cancels: scaling goes on. Raises: the error of a start that fails meanwhile."""
        known = {worker: worker.failed_starts for worker in self._workers}
        while not self.is_complete:
            for worker in self._staying():
                if worker.error is not None and worker.failed_starts > known.get(worker, 0):
                    raise worker.error
            observer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._observers.append(observer)
            await observer

    def note_change(self) -> None:
        """Look again at what there is."""
        self.was_ready = self.was_ready or (self.target > 0 and self._num_ready() >= self.target)
        self._changed.set()
        observers, self._observers = self._observers, []
        for observer in observers:
            if not observer.done():
                observer.set_result(None)

    async def _wait(self) -> None:
        """Until something changes, or a sequence's time is over."""
        seconds = self._workplace.queue.expire_sequences()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def _reconcile(self, group: asyncio.TaskGroup) -> None:
        staying = self._staying()
        for _ in range(self.target - len(staying)):
            worker = Worker(self._next_seat(), self._workplace)
            self._workers[worker] = task = group.create_task(worker.run(), name=f"worker {worker.seat}")
            task.add_done_callback(functools.partial(self._forget, worker))
        ordered = sorted(staying, key=lambda worker: (_LEAVING_FIRST.index(worker.phase), -worker.seat))
        for worker in ordered[: max(len(staying) - self.target, 0)]:
            is_idle = worker.phase in (WorkerPhase.STARTING, WorkerPhase.FAILED)
            worker.leave()
            if is_idle:
                self._workers[worker].cancel()
        self._on_change()
        for worker, task in self._workers.items():
            if worker.is_leaving and worker.phase is WorkerPhase.FAILED and not len(self._workplace.queue):
                task.cancel()

    def _forget(self, worker: Worker, _: asyncio.Task[None]) -> None:
        del self._workers[worker]
        self._workplace.meters.worker_left(worker.seat)
        self.note_change()

    def _staying(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.is_leaving]

    def _num_ready(self) -> int:
        return sum(worker.phase is WorkerPhase.READY for worker in self._workers)
