"""Calls to one worker, in the order they were made: a few are sent ahead, so that the worker need not wait for them.

The worker answers in the same order, so whose turn it is decides whose an event is. A call that is given up before its
turn is dropped by the worker, or its answer passed over; one that is given up in its turn may end by itself for a
moment, and then the worker is ended: nothing else stops a handler.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from argosy.core.errors import EngineError, NotBegun
from argosy.handlers.channel import Channel
from argosy.handlers.worker.messages import Answer, Command, Drop, Event, Failed

# How long a call that nobody waits for any more may go on before its worker is ended.
_GIVEN_UP_SECONDS = 1.0


class Call:
    """One question to the worker. is_over: its last event was taken. has_turn: it was, or is, the one answered."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_over = False
        self.has_turn = False
        self.is_given_up = False


class Conversation:
    """Turns of calls over one channel. end: ends the worker for a reason. death: why it ended, once it has."""

    def __init__(
        self, channel: Channel, end: Callable[[str], None], death: Callable[[], Awaitable[EngineError]]
    ) -> None:
        self._channel = channel
        self._end = end
        self._death = death
        self._turn = asyncio.Lock()
        self._calls: deque[Call] = deque()
        self._next_number = 0
        # The worker is gone, or leaves after the event that was taken last: no call after that was begun.
        self._is_broken = False

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for the worker."""
        return all(call.is_given_up for call in self._calls)

    def open(self, question: Callable[[int], Command]) -> Call:
        """Send a question; its turn comes after those before it. Raises: EngineError if it is too long."""
        self._next_number += 1
        call = Call(self._next_number)
        self._channel.send(question(call.number))
        self._calls.append(call)
        return call

    @asynccontextmanager
    async def turn(self, call: Call, seconds: float) -> AsyncIterator[None]:
        """The time in which events are the call's. Leaving it early gives the call up. Raises: NotBegun."""
        try:
            async with self._turn:
                while self._calls[0] is not call:
                    await self._take(self._calls[0], seconds)
                if self._is_broken:
                    raise NotBegun("the worker ended before it began the call")
                call.has_turn = True
                try:
                    yield
                finally:
                    if not call.is_over:
                        await self._let_end(call)
        finally:
            if not call.is_over and not call.has_turn:
                call.is_given_up = True
                self._channel.send(Drop(call.number))

    async def next(self, call: Call, seconds: float) -> Event:
        """The call's next event, within its turn; after `seconds` without one the worker is ended.

        Raises: WorkerDied, OutOfResources.
        """
        return await self._take(call, seconds)

    async def _take(self, call: Call, seconds: float) -> Event:
        timer = asyncio.get_running_loop().call_later(
            seconds, self._end, f"its handler did not answer within {seconds:g} s"
        )
        try:
            event = await self._channel.take()
        finally:
            timer.cancel()
        if event is None:
            self._is_broken = True
            self._finish(call)
            if call.has_turn:
                raise await self._death()
            raise NotBegun("the worker ended before it began the call")
        if isinstance(event, Failed) and event.kind == "memory":
            self._is_broken = True
        if not (isinstance(event, Answer) and not event.is_end):
            self._finish(call)
        return event

    def _finish(self, call: Call) -> None:
        call.is_over = True
        if self._calls and self._calls[0] is call:
            self._calls.popleft()

    async def _let_end(self, call: Call) -> None:
        """Nobody waits for the call any more; it has the turn until it has ended, or the worker has."""
        try:
            async with asyncio.timeout(_GIVEN_UP_SECONDS):
                while not call.is_over:
                    event = await self._channel.take()
                    self._is_broken = self._is_broken or event is None
                    if event is None or not isinstance(event, Answer) or event.is_end:
                        self._finish(call)
        except TimeoutError:
            pass
        finally:
            if not call.is_over:
                self._is_broken = True
                self._end("its call was given up")
                self._finish(call)
