"""Copies of a share of the requests to another revision: its answers are measured and thrown away.

A copy never touches the answer the client gets: it is sent beside it, is dropped when `MAX_COPIES` are under way,
waits for nobody, and is tried once. It counts in the revision's own numbers, apart from real traffic.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context

from argosy.core.errors import ArgosyError
from argosy.gateway.attempt import Attempt
from argosy.gateway.call import Call
from argosy.gateway.dispatch import Dispatcher, check_refusal
from argosy.gateway.transport import Answer, ReplicaFailure
from argosy.gateway.usage import EventFilter, usage_of
from argosy.observe.tracing import NO_SPAN, current_span

logger = logging.getLogger(__name__)

MAX_COPIES = 32
COPY_SECONDS = 300.0
_MAX_ANSWER_BYTES = 4 * 2**20


class Shadows:
    """Sends copies while `run` runs."""

    def __init__(self, dispatcher: Dispatcher, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._draw = draw
        self._group: asyncio.TaskGroup | None = None
        self.in_flight = 0

    async def run(self) -> None:
        """Until cancelled. Cancels: all copies under way."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    def offer(self, call: Call) -> None:
        """Send a copy if the service wants one of this call, and there is room."""
        shadow = call.service.route.policy.shadow
        if shadow is None or self._group is None or call.revision:
            return
        if 100 * self._draw() >= shadow.percent or self.in_flight >= MAX_COPIES:
            return
        attempt = self._dispatcher.shadow_attempt(call, shadow.revision)
        if attempt is not None:
            self.in_flight += 1
            apart = copy_context()
            apart.run(current_span.set, NO_SPAN)  # the span is of the client's request, and ends with it
            self._group.create_task(self._copy(attempt), context=apart)

    async def _copy(self, attempt: Attempt) -> None:
        is_late = False
        try:
            async with asyncio.timeout(COPY_SECONDS):
                await self._measure(attempt)
        except TimeoutError:
            is_late = True
        except ReplicaFailure as failure:
            attempt.failed(failure, self._clock())
        except ArgosyError as error:
            logger.info("shadow copy failed", extra={"error": error.message})
        except Exception:  # boundary: a copy never ends the gateway
            logger.exception("shadow copy broke")
        finally:
            self.in_flight -= 1
            attempt.close(self._clock(), is_late=is_late)

    async def _measure(self, attempt: Attempt) -> None:
        answer = await self._dispatcher.ask(attempt)
        try:
            check_refusal(answer)
            if answer.status == 429:
                attempt.overloaded(self._clock(), is_final=True)
            elif answer.status >= 400:
                attempt.refused_caller(self._clock())
            else:
                await self._read(answer, attempt)
        finally:
            answer.close()

    async def _read(self, answer: Answer, attempt: Attempt) -> None:
        events = EventFilter() if attempt.call.prefix.is_stream else None
        body, last_at = b"", self._clock()
        while piece := await answer.read():
            last_at = self._clock()
            if events is None:
                body += piece
                if len(body) > _MAX_ANSWER_BYTES:
                    return
            elif b"data:" in events.feed(piece) and attempt.first_at is None:
                attempt.first_byte(last_at)
        if events is None:
            attempt.usage = usage_of(body)
            attempt.answered(self._clock())
        else:
            attempt.usage = events.usage
            attempt.streamed(last_at, self._clock())
