"""Who may wait for a version, and who is told at once to come back later, and when (F-07).

A request is refused when as many wait as may, when job tickets are used and no worker is idle, and when no worker will
answer it soon: none is there, or all failed and the next try is far off. What waits is told so, too, the moment that
becomes so. Nobody is kept waiting for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from argosy.core.errors import ArgosyError, DeadlineExceeded, NoWorker, QueueFull
from argosy.core.model_archive import VersionSettings
from argosy.core.prediction import PredictRequest
from argosy.serving.admission_policy import ServiceRate, retry_after_seconds
from argosy.serving.predictions.crew import Crew
from argosy.serving.predictions.job import Job, Question
from argosy.serving.predictions.job_queue import JobQueue
from argosy.serving.predictions.meters import PredictionMeters
from argosy.serving.predictions.restarts import LONG_WAIT_SECONDS


class Door:
    """Of one version. label: `name/version`. is_closed: it lets nobody in any more."""

    def __init__(
        self,
        label: str,
        settings: VersionSettings,
        queue: JobQueue,
        crew: Crew,
        meters: PredictionMeters,
        clock: Callable[[], float],
    ) -> None:
        self.is_closed = False
        self._label = label
        self._settings = settings
        self._queue = queue
        self._crew = crew
        self._meters = meters
        self._clock = clock
        self._rate = ServiceRate()
        self._open: set[Job] = set()

    def enter(self, request: PredictRequest) -> Job:
        """Let the request wait. Raises: QueueFull, NoWorker."""
        self._meters.arrived(request)
        job = Job(request, self._clock())
        try:
            self._admit(job)
        except ArgosyError as error:
            self._meters.ended(request, 0.0, 0.0, error)
            raise
        if (seconds := self._settings.client_timeout_seconds) is not None:
            job.timer = asyncio.get_running_loop().call_later(seconds, self._expire, job, seconds)
        return job

    def ask(self) -> Question:
        """Let a question to the handler wait. Raises: QueueFull, NoWorker."""
        question = Question(self._clock())
        self._admit(question)
        return question

    def leave(self, job: Job) -> None:
        """The job's client has its answer, or wants none any more."""
        self._open.discard(job)
        now = self._clock()
        if job.ending is None:
            job.leave(now)
            self._withdraw(job)
        elif job.started is not None:
            self._rate.finished(now)
        if not isinstance(job, Question):
            self._meters.ended(job.request, job.queue_seconds, job.inference_seconds, job.error)

    def refuse_waiting(self) -> None:
        """Tell those who wait in vain."""
        if len(self._queue) and (error := self._absence()) is not None:
            self._queue.fail_all(error)

    def shut(self) -> None:
        """Let nobody in any more."""
        self.is_closed = True

    def refuse_all(self) -> None:
        """Tell everyone who waits that the version is gone."""
        self._queue.fail_all(self._gone())

    def end_all(self) -> None:
        """Tell everyone who has no answer yet that the version is gone, wherever the request may be."""
        self.refuse_all()
        now = self._clock()
        for job in self._open:
            job.fail(self._gone(), now)

    def _admit(self, job: Job) -> None:
        if self.is_closed:
            raise self._gone()
        absence = self._absence() if self._crew.target else self._nobody()
        if absence is not None:
            raise absence
        capacity = self._settings.job_queue_size
        if len(self._queue) >= capacity:
            raise self._full(f"{capacity} requests wait already, as many as its queue holds")
        if self._settings.use_job_ticket and not self._queue.num_free_takers:
            raise self._full("no worker is idle, and job tickets are for idle workers only")
        self._queue.push(job)
        self._open.add(job)

    def _expire(self, job: Job, seconds: float) -> None:
        text = f"no answer within {seconds:g} s, the client timeout of model {self._label}: try later, or raise it"
        job.fail(DeadlineExceeded(text), self._clock())
        self._withdraw(job)

    def _withdraw(self, job: Job) -> None:
        self._queue.remove(job)
        self._crew.withdraw(job)

    def _absence(self) -> NoWorker | None:
        """Why no worker will answer soon; None = one will."""
        wait = self._crew.wait_seconds()
        if wait is None:
            return self._nobody()
        if wait <= LONG_WAIT_SECONDS:
            return None
        return NoWorker(
            f"no worker of model {self._label} can be started: {self._crew.trouble()}; the next try is in {wait:.0f} s",
            retry_after_seconds=wait,
        )

    def _nobody(self) -> NoWorker:
        return NoWorker(
            f"model {self._label} has no worker to serve inference requests: scale it to at least one",
            retry_after_seconds=LONG_WAIT_SECONDS,
        )

    def _full(self, detail: str) -> QueueFull:
        seconds = retry_after_seconds(len(self._queue), self._rate.per_second())
        return QueueFull(
            f"model {self._label} is busy: {detail}; try again in {seconds:.0f} s", retry_after_seconds=seconds
        )

    def _gone(self) -> NoWorker:
        return NoWorker(f"model {self._label} is leaving and takes no more requests", retry_after_seconds=1.0)
