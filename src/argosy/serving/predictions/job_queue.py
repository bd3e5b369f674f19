"""The jobs that wait for one version of a model, and the takers that wait for jobs.

First come, first served. A job that must be tried alone goes to the head, and never shares a call. A client that
leaves takes its job out at once. Takers sleep on a future each; one job wakes one taker. While a taker holds a batch
open, the others leave the waiting jobs to it. Jobs of sequences have lines of their own, and are never held.

Where a call takes less than two milliseconds, a worker would spend much of its time waiting for the next one. So it is
given calls ahead, as far as it takes them, but only while no worker is idle, only full batches, and only as long as its
calls do end after so short a time: nothing more is put behind one that takes longer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from argosy.core.batching import BatchPlan, closes_in
from argosy.core.errors import ArgosyError
from argosy.core.model_archive import SequenceSettings
from argosy.serving.predictions.job import Job
from argosy.serving.predictions.sequences import Sequences
from argosy.serving.predictions.takers import Desk, Taker

_SHORT_CALL_SECONDS = 0.002
_STUCK_CALL_SECONDS = 0.01  # A call that takes so long is not one of the short ones.
_NEWEST_CALL_WEIGHT = 0.1


class Planner(Protocol):
    """Says what the next call takes, and hears how long a batch was held open."""

    def plan(self, num_waiting: int, num_in_flight: int, num_idle: int) -> BatchPlan:
        """What to do with the jobs that wait."""
        ...

    def held(self, seconds: float, num_before: int, num_after: int) -> None:
        """A batch was held open for so long, and grew."""
        ...


class JobQueue:
    """num_running: jobs in calls. is_emptying: no worker will follow, so those that leave serve what waits first."""

    def __init__(self, planner: Planner, sequences: SequenceSettings | None, clock: Callable[[], float]) -> None:
        self.num_running = 0
        self.is_emptying = False
        self._planner = planner
        self._clock = clock
        self._jobs: OrderedDict[Job, None] = OrderedDict()
        self._sequences = None if sequences is None else Sequences(sequences)
        self._idle: dict[Taker, None] = {}
        self._idle_ahead: dict[Taker, None] = {}
        self._mean_call_seconds: float | None = None
        self._holder: tuple[Taker, int] | None = None

    def __len__(self) -> int:
        return len(self._jobs) if self._sequences is None else len(self._jobs) + len(self._sequences)

    @property
    def num_free_takers(self) -> int:
        """Takers that wait for a job, would begin it at once, and are not about to get one."""
        expected = 0 if self._sequences is None else len(self._sequences)
        return max(self._num_idle() - expected, 0)

    def push(self, job: Job) -> None:
        """Let the job wait behind all others. Raises: NoWorker, QueueFull for a job its sequence cannot take."""
        if self._sequences is not None and job.request.sequence_id:
            self.expire_sequences()
            self._sequences.admit(job, self._clock())
            self._wake_all()
        else:
            self._jobs[job] = None
            self._wake_one()

    def push_front(self, jobs: Iterable[Job]) -> None:
        """Let jobs that were taken before wait before all others, the oldest first."""
        for job in jobs:
            older = []
            for waiting in self._jobs:
                if waiting.arrived > job.arrived:
                    break
                older.append(waiting)
            self._jobs[job] = None
            for each in (job, *reversed(older)):
                self._jobs.move_to_end(each, last=False)
            self._wake_one()

    def holds(self, job: Job) -> bool:
        """Whether the job, which was taken before, waits again."""
        return job in self._jobs

    def remove(self, job: Job) -> None:
        """Take a job out, if it waits."""
        self._jobs.pop(job, None)
        if self._sequences is not None:
            self._sequences.remove(job, self._clock())

    def fail_all(self, error: ArgosyError) -> None:
        """End every job that waits."""
        waiting = [*self._jobs, *(self._sequences.clear() if self._sequences is not None else ())]
        self._jobs.clear()
        self._fail([(job, error) for job in waiting])

    def expire_sequences(self) -> float | None:
        """End sequences whose time is over; in how many seconds to look again, None = not before one is pushed."""
        if self._sequences is None:
            return None
        now = self._clock()
        self._fail(self._sequences.expire(now))
        expiry = self._sequences.next_expiry()
        return None if expiry is None else expiry - now

    async def take(self, taker: Taker) -> list[Job]:
        """The jobs of the taker's next call; none = it shall leave. Cancels: no job is lost."""
        while True:
            if taker.is_over or (taker.is_leaving and not self._is_needed(taker)):
                self._wake_next()
                return []
            if self._sequences is not None and (jobs := self._pop_sequences(self._sequences, taker)):
                return self._taken(jobs, taker)
            if not self._jobs or self._holder is not None or not self._suits(taker):
                self._wake_next()  # What does not suit this one may suit another.
                await self._sleep(taker)
                continue
            num_waiting = len(self._jobs)
            plan = self._planner.plan(num_waiting, num_waiting + self.num_running, self._num_idle())
            if taker.desk.is_busy and num_waiting < plan.batch_size:
                await self._sleep(taker)
                continue
            if not next(iter(self._jobs)).is_alone and closes_in(plan, num_waiting, 0.0) > 0.0:
                await self._hold(taker, plan)
            if taker.is_over or not self._jobs or not self._suits(taker):
                continue  # Something happened while the batch was held.
            return self._taken(self._pop(plan.batch_size), taker)

    def done(self, jobs: Sequence[Job], taker: Taker) -> None:
        """The taker's call with these jobs has ended."""
        self.num_running -= len(jobs)
        now = self._clock()
        desk = taker.desk
        desk.num_open -= 1
        desk.has_alone = False
        desk.moved_at = now
        if self._sequences is not None:
            for job in jobs:
                self._sequences.done(job, now)
            self._wake_all()

    def note_call(self, seconds: float) -> None:
        """A call took so long."""
        mean = self._mean_call_seconds
        self._mean_call_seconds = seconds if mean is None else mean + (seconds - mean) * _NEWEST_CALL_WEIGHT

    def worker_leaves(self, worker: object) -> None:
        """The worker is about to leave: its sequences take no more requests."""
        if self._sequences is not None:
            self._sequences.close_of(worker)

    def worker_gone(self, worker: object, error: ArgosyError | None) -> None:
        """The worker's predictor has ended: so have its sequences."""
        if self._sequences is not None:
            self._fail(self._sequences.end_of(worker, error))

    def _is_needed(self, taker: Taker) -> bool:
        if self._sequences is not None and self._sequences.has_waiting(taker.worker):
            return True
        return self.is_emptying and len(self) > 0 and not taker.is_ahead

    def _suits(self, taker: Taker) -> bool:
        """Whether the taker may have the first job now."""
        desk = taker.desk
        return desk.takes(next(iter(self._jobs))) and (not desk.is_busy or self._may_go_ahead(desk))

    def _taken(self, jobs: list[Job], taker: Taker) -> list[Job]:
        self.num_running += len(jobs)
        desk = taker.desk
        if not desk.num_open:
            desk.moved_at = self._clock()
        desk.num_open += 1
        desk.has_alone = jobs[0].is_alone
        return jobs

    def _has_short_calls(self) -> bool:
        mean = self._mean_call_seconds
        return mean is not None and mean < _SHORT_CALL_SECONDS and self._sequences is None

    def _may_go_ahead(self, desk: Desk) -> bool:
        """Whether a call may be put behind those on this busy desk."""
        is_moving = self._has_short_calls() and self._clock() - desk.moved_at < _STUCK_CALL_SECONDS
        return is_moving and not self._num_idle()

    def _num_idle(self) -> int:
        """Takers that sleep and would begin a job at once."""
        return sum(not taker.desk.is_busy for taker in self._idle) if self._idle else 0

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

    def _pop_sequences(self, sequences: Sequences, taker: Taker) -> list[Job]:
        ready = 0 if taker.desk.is_busy else sequences.num_ready(taker.worker)
        if not ready:
            return []
        return sequences.take(taker.worker, self._planner.plan(ready, ready, 0).batch_size)

    def _fail(self, lost: Sequence[tuple[Job, ArgosyError]]) -> None:
        now = self._clock()
        for job, error in lost:
            job.fail(error, now)

    async def _sleep(self, taker: Taker) -> None:
        taker.waiter = asyncio.get_running_loop().create_future()
        idle = self._idle_ahead if taker.is_ahead else self._idle
        idle[taker] = None
        try:
            await taker.waiter
        except asyncio.CancelledError:
            self._wake_next()  # It may have been woken for a job in the same turn of the loop.
            raise
        finally:
            taker.waiter = None
            idle.pop(taker, None)

    async def _hold(self, taker: Taker, plan: BatchPlan) -> None:
        """Wait until the batch is full or its time is over."""
        began, num_before = self._clock(), len(self._jobs)
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
            self._planner.held(self._clock() - began, num_before, len(self._jobs))

    def _wake_one(self) -> None:
        if self._holder is None:
            self._wake_next()
            return
        holder, wait_for = self._holder
        if len(self._jobs) >= wait_for or next(iter(self._jobs)).is_alone:
            holder.wake()

    def _wake_next(self) -> None:
        if not self._jobs or self._holder is not None or not (self._idle or self._idle_ahead):
            return
        for idle in (self._idle, self._idle_ahead) if self._has_short_calls() else (self._idle,):
            taker = next(filter(self._suits, idle), None)
            if taker is not None:
                del idle[taker]
                taker.wake()
                return

    def _wake_all(self) -> None:
        for taker in [*self._idle, *self._idle_ahead]:
            taker.wake()
