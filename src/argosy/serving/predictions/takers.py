"""Those that wait for jobs, and where what they took lies: a desk per predictor, a taker per call it may be given."""

from __future__ import annotations

import asyncio

from argosy.serving.predictions.job import Job


class Desk:
    """Where the calls of one predictor lie in a row. num_at_once: how many it answers beside each other.

    num_open: not answered yet. has_alone: one shares nothing. moved_at: when one was last begun on an empty desk, or
    ended.
    """

    __slots__ = ("has_alone", "moved_at", "num_at_once", "num_open")

    def __init__(self, num_at_once: int = 1) -> None:
        self.num_at_once = num_at_once
        self.num_open = 0
        self.has_alone = False
        self.moved_at = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a further call would have to wait for the end of another one."""
        return self.num_open >= self.num_at_once

    def takes(self, job: Job) -> bool:
        """Whether the job may join what lies there."""
        return not self.has_alone and not (job.is_alone and self.num_open)


class Taker:
    """Whoever makes one call after another: a worker, or one of the calls a predictor takes at a time.

    is_leaving: it takes no more jobs but those nobody else will serve. is_over: it takes none at all.
    is_ahead: it is there for calls that wait in the worker for another one's end, and serves when the others cannot.
    desk: where its calls and those of others meet.
    """

    __slots__ = ("desk", "is_ahead", "is_leaving", "is_over", "waiter", "worker")

    def __init__(self, worker: object, desk: Desk, *, is_ahead: bool, is_leaving: bool) -> None:
        self.worker = worker
        self.desk = desk
        self.is_ahead = is_ahead
        self.is_leaving = is_leaving
        self.is_over = False
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let it look again."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
