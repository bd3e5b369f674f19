"""The jobs that wait for one version of a model, and the takers that wait for jobs.

First come, first served. A job that must be tried alone goes to the head, and never shares a call. A client that
leaves takes its job out at once. Takers sleep on a future each; one job wakes one taker. While a taker holds a batch
open, the others leave the waiting jobs to it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol

from argosy.core.batching import BatchPlan, closes_in
from argosy.core.errors import ArgosyError
from argosy.serving.predictions.job import Job


class Planner(Protocol):
    """Says what the next call takes, and hears how long a batch was held open."""

    def plan(self, num_waiting: int, num_in_flight: int) -> BatchPlan:
        """What to do with the jobs that wait."""
        ...

    def held(self, seconds: float) -> None:
        """A batch was held open for so long."""
        ...


class Taker:
    """Whoever makes one call after another: a worker, or one of the calls a predictor takes at a time.

    is_leaving: it takes no more jobs; only in a queue that is being emptied does it go on until that is done.
    """

    __slots__ = ("is_leaving", "waiter", "worker")

    def __init__(self, worker: object) -> None:
        self.worker = worker
        self.is_leaving = False
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let it look again."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class JobQueue:
    """Bounded by `capacity`; jobs that come back to the head do not count against it.

    is_emptying: no worker will follow, so those that leave serve what waits first.
    """

    def __init__(self, capacity: int, planner: Planner, clock: Callable[[], float]) -> None:
        self.capacity = capacity
        self.num_running = 0
        self.is_emptying = False
        self._planner = planner
        self._clock = clock
        self._jobs: OrderedDict[Job, None] = OrderedDict()
        self._idle: dict[Taker, None] = {}
        self._holder: tuple[Taker, int] | None = None

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def num_idle(self) -> int:
        """Takers that wait for a job, less the jobs they are about to get."""
        return max(len(self._idle) - len(self._jobs), 0)

    def push(self, job: Job) -> None:
        """Let the job wait behind all others."""
        self._jobs[job] = None
        self._wake_one()

    def push_front(self, jobs: Iterable[Job]) -> None:
        """Let the jobs wait before all others, in their order."""
        for job in reversed([*jobs]):
            self._jobs[job] = None
            self._jobs.move_to_end(job, last=False)
            self._wake_one()

    def remove(self, job: Job) -> None:
        """Take a job out, if it waits."""
        self._jobs.pop(job, None)

    def fail_all(self, error: ArgosyError) -> None:
        """End every job that waits."""
        now = self._clock()
        waiting = [*self._jobs]
        self._jobs.clear()
        for job in waiting:
            job.fail(error, now)

    async def take(self, taker: Taker) -> list[Job]:
        """The jobs of the taker's next call; none = it shall leave. Cancels: no job is lost."""
        while True:
            if taker.is_leaving and not (self.is_emptying and self._jobs):
                self._wake_next()
                return []
            if not self._jobs or self._holder is not None:
                await self._sleep(taker)
                continue
            plan = self._planner.plan(len(self._jobs), len(self._jobs) + self.num_running)
            if not next(iter(self._jobs)).is_alone and closes_in(plan, len(self._jobs), 0.0) > 0.0:
                await self._hold(taker, plan)
            if jobs := self._pop(plan.batch_size):
                self.num_running += len(jobs)
                return jobs

    def done(self, num_jobs: int) -> None:
        """A call with so many jobs has ended."""
        self.num_running -= num_jobs

    def _pop(self, most: int) -> list[Job]:
        jobs: list[Job] = []
        while self._jobs and len(jobs) < most:
            job = next(iter(self._jobs))
            if job.is_alone and jobs:
                break
            del self._jobs[job]
            jobs.append(job)
            if job.is_alone:
                break
        self._wake_next()
        return jobs

    async def _sleep(self, taker: Taker) -> None:
        taker.waiter = asyncio.get_running_loop().create_future()
        self._idle[taker] = None
        try:
            await taker.waiter
        except asyncio.CancelledError:
            self._wake_next()  # It may have been woken for a job in the same turn of the loop.
            raise
        finally:
            taker.waiter = None
            self._idle.pop(taker, None)

    async def _hold(self, taker: Taker, plan: BatchPlan) -> None:
        """Wait until the batch is full or its time is over."""
        began = self._clock()
        self._holder = (taker, plan.wait_for or plan.batch_size)
        loop = asyncio.get_running_loop()
        taker.waiter = loop.create_future()
        timer = loop.call_later(closes_in(plan, len(self._jobs), 0.0), taker.wake)
        try:
            await taker.waiter
        except asyncio.CancelledError:
            self._holder = None
            self._wake_next()
            raise
        finally:
            timer.cancel()
            taker.waiter = None
            self._holder = None
            self._planner.held(self._clock() - began)

    def _wake_one(self) -> None:
        if self._holder is not None:
            holder, wait_for = self._holder
            if len(self._jobs) >= wait_for or next(iter(self._jobs)).is_alone:
                holder.wake()
        else:
            self._wake_next()

    def _wake_next(self) -> None:
        if self._jobs and self._idle and self._holder is None:
            taker = next(iter(self._idle))
            del self._idle[taker]
            taker.wake()
