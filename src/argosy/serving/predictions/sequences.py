"""Requests that belong together: one worker for all of them, in their order, one at a time. Values only, no clock.

A sequence begins with a request that says so and belongs to the worker that takes that request. It ends with a
request that says so, when it was silent too long, when it is too old, or with its worker, whose memory held its
state. Its requests are never repeated: a handler with a memory could count one twice.

Source: TorchServe docs/sequence_batching.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from argosy.core.errors import ArgosyError, DeadlineExceeded, NoWorker, QueueFull, WorkerDied
from argosy.core.model_archive import SequenceSettings
from argosy.serving.predictions.job import Job

_RETRY_SECONDS = 1.0
_SHOWN_CHARACTERS = 96


class Sequence:
    """One of them. worker: None until a worker took its first request. running: the request in a call now.

    is_closed: nothing may follow what waits.
    """

    __slots__ = ("began", "is_closed", "last_active", "name", "running", "waiting", "worker")

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.began = now
        self.last_active = now
        self.worker: object | None = None
        self.running: Job | None = None
        self.waiting: deque[Job] = deque()
        self.is_closed = False


class Sequences:
    """All open sequences of one version."""

    def __init__(self, settings: SequenceSettings) -> None:
        self._settings = settings
        self._open: dict[str, Sequence] = {}
        self._by_job: dict[Job, Sequence] = {}
        self._num_waiting = 0

    def __len__(self) -> int:
        return self._num_waiting

    def admit(self, job: Job, now: float) -> None:
        """Let the job wait behind those of its sequence. Raises: NoWorker if that is not open; QueueFull."""
        request = job.request
        sequence = self._open.get(request.sequence_id)
        if sequence is None:
            sequence = self._begin(job, now)
        if sequence.is_closed:
            raise _not_open(request.sequence_id)
        if len(sequence.waiting) >= self._settings.max_queued_per_sequence:
            raise QueueFull(
                f"{len(sequence.waiting)} requests of sequence {_short(sequence.name)} wait already, as many as may: "
                "send the next one after an answer",
                retry_after_seconds=_RETRY_SECONDS,
            )
        sequence.is_closed = request.ends_sequence
        sequence.last_active = now
        sequence.waiting.append(job)
        job.may_repeat = False
        self._by_job[job] = sequence
        self._num_waiting += 1

    def take(self, worker: object, most: int) -> list[Job]:
        """The next request of each sequence this worker may serve, oldest first."""
        heads = sorted(self._ready(worker), key=lambda sequence: sequence.waiting[0].arrived)[:most]
        jobs = []
        for sequence in heads:
            sequence.worker = worker
            sequence.running = sequence.waiting.popleft()
            jobs.append(sequence.running)
        self._num_waiting -= len(jobs)
        return jobs

    def num_ready(self, worker: object) -> int:
        """How many `take` would give."""
        return sum(1 for _ in self._ready(worker))

    def has_waiting(self, worker: object) -> bool:
        """Whether requests wait that only this worker may serve."""
        return any(sequence.worker is worker and sequence.waiting for sequence in self._open.values())

    def done(self, job: Job, now: float) -> None:
        """The call with this job has ended. Ignored for a job of no sequence."""
        sequence = self._by_job.pop(job, None)
        if sequence is not None and sequence.running is job:
            sequence.running = None
            sequence.last_active = now
            self._end_if_over(sequence)

    def remove(self, job: Job, now: float) -> None:
        """The job's client has left. Ignored unless it waits here."""
        sequence = self._by_job.get(job)
        if sequence is None or sequence.running is job:
            return
        del self._by_job[job]
        sequence.waiting.remove(job)
        sequence.last_active = now
        self._num_waiting -= 1
        if sequence.worker is None and not sequence.waiting:
            self._drop(sequence)  # Nobody has a state of it, and nobody heard its name.
        self._end_if_over(sequence)

    def close_of(self, worker: object) -> None:
        """Take no more requests for the sequences of a worker that is about to leave."""
        for sequence in [*self._open.values()]:
            if sequence.worker is worker:
                sequence.is_closed = True
                self._end_if_over(sequence)

    def end_of(self, worker: object, error: ArgosyError | None) -> list[tuple[Job, ArgosyError]]:
        """The worker is gone, and its sequences with it: who waits for an answer in vain, and why."""
        cause = error or WorkerDied("the worker that held the state of this sequence was taken away: start it anew")
        lost = []
        for sequence in [*self._open.values()]:
            if sequence.worker is worker:
                lost += [(job, cause) for job in self._drop(sequence)]
        return lost

    def expire(self, now: float) -> list[tuple[Job, ArgosyError]]:
        """End what is silent or old: who waits for an answer in vain, and why."""
        lost: list[tuple[Job, ArgosyError]] = []
        for sequence in [*self._open.values()]:
            deadline = self._deadline(sequence)
            if deadline is not None and deadline <= now:
                error = DeadlineExceeded(f"sequence {_short(sequence.name)} is over its time: start a new one")
                lost += [(job, error) for job in self._drop(sequence)]
        return lost

    def next_expiry(self) -> float | None:
        """When `expire` has something to do; None = never, as things stand."""
        deadlines = [deadline for each in self._open.values() if (deadline := self._deadline(each)) is not None]
        return min(deadlines, default=None)

    def clear(self) -> list[Job]:
        """End every sequence; the jobs that waited."""
        return [job for sequence in [*self._open.values()] for job in self._drop(sequence)]

    def _begin(self, job: Job, now: float) -> Sequence:
        name = job.request.sequence_id
        if not job.request.starts_sequence:
            raise _not_open(name)
        if len(self._open) >= self._settings.max_sequences:
            raise QueueFull(
                f"{len(self._open)} sequences are open already, as many as may: end one, or allow more",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self._open[name] = sequence = Sequence(name, now)
        return sequence

    def _ready(self, worker: object) -> Iterator[Sequence]:
        for sequence in self._open.values():
            if sequence.waiting and sequence.running is None and sequence.worker in (None, worker):
                yield sequence

    def _deadline(self, sequence: Sequence) -> float | None:
        deadlines = []
        if self._settings.timeout_seconds > 0.0:
            deadlines.append(sequence.began + self._settings.timeout_seconds)
        if self._settings.max_idle_seconds > 0.0 and sequence.running is None and not sequence.waiting:
            deadlines.append(sequence.last_active + self._settings.max_idle_seconds)
        return min(deadlines, default=None)

    def _end_if_over(self, sequence: Sequence) -> None:
        if sequence.is_closed and not sequence.waiting and sequence.running is None:
            self._drop(sequence)

    def _drop(self, sequence: Sequence) -> list[Job]:
        if self._open.get(sequence.name) is sequence:  # Another one may have begun under its name since it expired.
            del self._open[sequence.name]
        jobs = [*sequence.waiting]
        sequence.waiting.clear()
        for job in jobs:
            del self._by_job[job]
        self._num_waiting -= len(jobs)
        return jobs


def _not_open(name: str) -> NoWorker:
    return NoWorker(
        f"sequence {_short(name)} is not open: it was never started, has ended, was silent too long, or lost its "
        "worker; start it anew",
        retry_after_seconds=_RETRY_SECONDS,
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "...")
