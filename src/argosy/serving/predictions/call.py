"""One call of a predictor with a batch of jobs: pieces to their readers, and an ending for every job.

A call that fails as a whole while several jobs shared it says nothing about any one of them. So those of which
nothing was streamed go back to the head of the queue and are tried once more, each alone (D-31): the bad one fails
alone, the others get the answers they would have had. The same holds if the worker died of the call. A job that was
alone gets the error; it is not tried again, or one bad request would end worker after worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec

from argosy.core.errors import ArgosyError, EngineDead, EngineError, HandlerError, NotBegun, OutOfResources, WorkerDied
from argosy.core.interfaces import Predictor
from argosy.core.prediction import Prediction
from argosy.serving.predictions.guard import Guard
from argosy.serving.predictions.job import Job, Question

logger = logging.getLogger(__name__)


class Call:
    """The jobs of one call, and what becomes of them. is_abandoned: it was ended, for nobody wanted its answers."""

    __slots__ = ("_clock", "_guard", "_jobs", "is_abandoned")

    def __init__(self, jobs: Sequence[Job], guard: Guard, clock: Callable[[], float]) -> None:
        self.is_abandoned = False
        self._jobs = jobs
        self._guard = guard
        self._clock = clock

    async def run(self, predictor: Predictor, timeout_seconds: float) -> ArgosyError | None:
        """Answer every job that can be answered; the error of the call, None if there was none.

        timeout_seconds: longest wait for the next piece. Cancels: the predictor's call is closed.
        """
        guard = self._guard
        guard.begin(timeout_seconds)
        try:
            if isinstance(self._jobs[0], Question):
                await self._ask(self._jobs[0], predictor)
            else:
                await self._predict(predictor)
        except ArgosyError as error:
            return error
        except asyncio.CancelledError:
            if not guard.was_interrupting():
                raise
            return _hung(timeout_seconds) if guard.is_expired else None
        except Exception as error:  # boundary: whatever else a predictor raises is this call's error
            logger.exception("a predictor failed")
            return EngineError(f"the predictor failed with {type(error).__name__}: {error}; see the server's log")
        finally:
            guard.end()
        return self._unanswered()

    def left(self) -> None:
        """A reader has gone. If it was the last one, the call is ended."""
        if all(job.ending is not None for job in self._jobs):
            self.is_abandoned = True
            self._guard.interrupt()

    def settle(self, error: ArgosyError, *, was_crowded: bool) -> list[Job]:
        """End the jobs the failed call left without an ending; those to be tried once more are returned instead.

        was_crowded: its predictor died, with other calls open beside it, so it may have died of one of those.
        """
        again = []
        now = self._clock()
        is_shared = was_crowded or len(self._jobs) > 1
        for job in self._jobs:
            if job.ending is not None:
                continue
            may_repeat = job.may_repeat and not job.has_streamed and not job.is_alone
            if isinstance(error, NotBegun) or (is_shared and may_repeat):
                job.is_alone = job.is_alone or is_shared
                job.started = None
                again.append(job)
            else:
                job.fail(error, now)
        return again

    async def _predict(self, predictor: Predictor) -> None:
        async with aclosing(predictor.predict([job.request for job in self._jobs])) as pieces:
            async for piece in pieces:
                self._deliver(piece)
                if not piece.is_last:
                    self._guard.extend()

    async def _ask(self, question: Question, predictor: Predictor) -> None:
        question.answer = await predictor.describe()
        question.deliver(Prediction(index=0, body=b""), self._clock())

    def _deliver(self, piece: Prediction) -> None:
        if not 0 <= piece.index < len(self._jobs):
            raise HandlerError(
                f"the handler answered request {piece.index} of a batch of {len(self._jobs)}: "
                "it must give one answer per request, in their order"
            )
        job = self._jobs[piece.index]
        job.deliver(msgspec.structs.replace(piece, index=0) if piece.index else piece, self._clock())

    def _unanswered(self) -> ArgosyError | None:
        missing = sum(job.ending is None for job in self._jobs)
        if not missing:
            return None
        return HandlerError(
            f"the handler gave no answer to {missing} of {len(self._jobs)} requests: "
            "it must give one answer per request, in their order"
        )


def ends_worker(error: ArgosyError) -> bool:
    """Whether a predictor that raised this is replaced."""
    return isinstance(error, (WorkerDied, OutOfResources, EngineDead))


def _hung(timeout_seconds: float) -> WorkerDied:
    return WorkerDied(
        f"the worker said nothing for {timeout_seconds:g} s and was replaced: raise the response timeout if its "
        "handler may take longer"
    )
