"""A request on its way through the queue and a worker, and its one ending: answered, failed, or left by its client.

The worker's side puts pieces in and never waits for the reader, since the reader of one request must not hold up the
others of its batch. A reader so slow that more than `_MAX_BUFFERED_BYTES` wait for it loses its answer (F-06).
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum
from typing import Any

from argosy.core.errors import ArgosyError, EngineError
from argosy.core.prediction import Prediction, PredictRequest

_MAX_BUFFERED_BYTES = 16 << 20


class Ending(Enum):
    """How a job ended; every job has exactly one."""

    ANSWERED = "answered"
    FAILED = "failed"
    LEFT = "left"


class Job:
    """One request. arrived, started, ended: seconds of the version's clock; None = not yet.

    is_alone: it shares no call: it was in a batch that failed and is tried once more. may_repeat: it may be tried
    once more. has_streamed: its reader got a piece that was not the last. timer: ends its wait for the first one.
    """

    __slots__ = (
        *("_buffered_bytes", "_pieces", "_waiter", "arrived", "ended", "ending", "error", "has_streamed"),
        *("is_alone", "may_repeat", "request", "started", "timer"),
    )

    def __init__(self, request: PredictRequest, arrived: float) -> None:
        self.request = request
        self.arrived = arrived
        self.started: float | None = None
        self.ended: float | None = None
        self.ending: Ending | None = None
        self.error: ArgosyError | None = None
        self.is_alone = False
        self.may_repeat = True
        self.has_streamed = False
        self.timer: asyncio.TimerHandle | None = None
        self._pieces: deque[Prediction] = deque()
        self._buffered_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def queue_seconds(self) -> float:
        """From arrival to the call it was answered by, or to its end."""
        until = self.started if self.started is not None else self.ended
        return max(until - self.arrived, 0.0) if until is not None else 0.0

    @property
    def inference_seconds(self) -> float:
        """From the call it was answered by to its end."""
        if self.started is None or self.ended is None:
            return 0.0
        return max(self.ended - self.started, 0.0)

    def deliver(self, piece: Prediction, now: float) -> None:
        """Give the reader a piece. Ignored once the job has ended."""
        if self.ending is not None:
            return
        self._pieces.append(piece)
        if piece.is_last:
            self._end(Ending.ANSWERED, now)
        else:
            self.has_streamed = True
            self._stop_timer()
            self._buffered_bytes += len(piece.body)
            if self._buffered_bytes > _MAX_BUFFERED_BYTES:
                self.fail(_too_slow(), now)
        self._wake()

    def fail(self, error: ArgosyError, now: float) -> None:
        """End the job with an error, which the reader gets after the pieces before it. Ignored once it has ended."""
        if self.ending is None:
            self.error = error
            self._end(Ending.FAILED, now)
            self._wake()

    def leave(self, now: float) -> None:
        """The reader goes away. Ignored once the job has ended."""
        if self.ending is None:
            self._end(Ending.LEFT, now)

    async def next_piece(self) -> Prediction:
        """The next piece. Raises: the job's error, once there is no piece before it. Cancels: the job waits on."""
        while not self._pieces:
            if self.error is not None:
                raise self.error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        piece = self._pieces.popleft()
        if not piece.is_last:
            self._buffered_bytes -= len(piece.body)
        return piece

    def _end(self, ending: Ending, now: float) -> None:
        self.ending = ending
        self.ended = now
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _too_slow() -> EngineError:
    return EngineError(
        f"the client reads too slowly: {_MAX_BUFFERED_BYTES >> 20} MiB of its answer wait for it; read faster, "
        "or ask for the answer in one piece"
    )


class Question(Job):
    """Asks a handler to describe itself; `answer` is what it said, once the job is answered."""

    __slots__ = ("answer",)

    def __init__(self, arrived: float) -> None:
        super().__init__(PredictRequest(request_id="", parts=()), arrived)
        self.is_alone = True
        self.answer: Any = None
