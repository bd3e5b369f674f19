"""Calls to one worker, in the order they were made: a few are sent ahead, so that the worker need not wait for them.

The worker answers in the same order, so each event belongs to the first call that is not over. A call that is given up
before the worker answers it is dropped there, or its answer passed over; one that is given up while it is answered may
end by itself for a moment, and then the worker is ended: nothing else stops a handler.
A piece that a handler's thread sends after the end of its call is passed over: it is nobody else's.
While nobody takes the pieces of an answer the socket is not read, so a handler that streams waits for its reader.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from argosy.core.errors import EngineError, NotBegun
from argosy.handlers.channel import Channel
from argosy.handlers.worker.messages import Answer, Command, Drop, Event, Failed

# How long a call that nobody waits for any more may go on before its worker is ended.
_GIVEN_UP_SECONDS = 1.0
_MAX_UNREAD_EVENTS = 64
# Pieces of calls that are over, during one call or while there is none.
_MAX_LATE_PIECES = 1_000
_NOT_BEGUN = "the worker ended before it began the call"


class Call:
    """One question to the worker. is_over: its last event came, or none will.

    error: what to raise once the events are taken: None = nothing, a function = the worker ended in this call.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_over = False
        self.is_given_up = False
        self.is_begun = False
        self.events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Until something has happened to it. One waiter at a time."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Something has happened."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Conversation:
    """The calls of one channel. end: ends the worker for a reason. death: why it ended, once it has."""

    def __init__(self, end: Callable[[str], None], death: Callable[[], Awaitable[EngineError]]) -> None:
        self.channel = Channel(self._event, self._lost)
        self._end = end
        self._death = death
        self._calls: deque[Call] = deque()
        self._next_number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timeout_seconds = 0.0
        self._heard_at = 0.0
        self._is_paused = False
        self._is_lost = False
        self._num_late_pieces = 0

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for the worker."""
        return not any(not call.is_given_up for call in self._calls)

    def open(self, question: Callable[[int], Command], timeout_seconds: float) -> Call:
        """Send a question. After `timeout_seconds` in which it is answered by nothing the worker is ended.

        Raises: EngineError if it is too long.
        """
        self._next_number += 1
        call = Call(self._next_number)
        if self._is_lost:
            call.is_over = True
            return call
        loop = asyncio.get_running_loop()
        self.channel.send(question(call.number), is_urgent=not self._calls)
        if not self._calls:
            call.is_begun = True
            self._heard_at = loop.time()
        self._timeout_seconds = timeout_seconds
        self._calls.append(call)
        self._watch_until(loop.time() + timeout_seconds)
        return call

    async def take(self, call: Call) -> Event:
        """The call's next event. Raises: WorkerDied, OutOfResources; NotBegun if the worker had not begun it."""
        while not call.events:
            if call.is_over:
                raise await self._death() if call.is_begun else NotBegun(_NOT_BEGUN)
            await call.wait()
        event = call.events.popleft()
        if self._is_paused and not call.events:
            self._resume()
        return event

    async def give_up(self, call: Call) -> None:
        """Nobody waits for the call any more."""
        call.is_given_up = True
        if self._is_paused:
            self._resume()
        if call.is_over:
            return
        if not call.is_begun:
            self.channel.send(Drop(call.number), is_urgent=False)
            return
        try:
            async with asyncio.timeout(_GIVEN_UP_SECONDS):
                while not call.is_over:
                    await call.wait()
        except TimeoutError:
            pass
        finally:
            if not call.is_over:
                self._end("its call was given up")

    def close(self) -> None:
        """No call will be answered any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self.channel.close()

    def _event(self, event: Event) -> None:
        if (
            isinstance(event, Answer)
            and not event.is_end
            and not (self._calls and self._calls[0].number == event.number)
        ):
            self._num_late_pieces += 1
            if self._num_late_pieces > _MAX_LATE_PIECES:
                self._end("its handler does not stop answering what is over")
            return
        if not self._calls:
            self._end(f"it sent {type(event).__name__}, which nobody asked for")
            return
        call = self._calls[0]
        self._heard_at = asyncio.get_running_loop().time()
        if isinstance(event, Answer) and not event.is_end:
            if not call.is_given_up:
                call.events.append(event)
                if len(call.events) > _MAX_UNREAD_EVENTS:
                    self._is_paused = True
                    self.channel.pause()
        else:
            self._finish(call, event)
        call.wake()

    def _finish(self, call: Call, event: Event) -> None:
        call.events.append(event)
        call.is_over = True
        self._num_late_pieces = 0
        self._calls.popleft()
        if isinstance(event, Failed) and event.kind == "memory":
            # The worker leaves after this: it begins no other.
            self._lost()
        elif self._calls:
            self._calls[0].is_begun = True

    def _lost(self) -> None:
        self._is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        for call in self._calls:
            call.is_over = True
            call.wake()
        self._calls.clear()

    def _resume(self) -> None:
        self._is_paused = False
        self._heard_at = asyncio.get_running_loop().time()
        self.channel.resume()

    def _check_time(self) -> None:
        """One timer for all calls: it looks when the time may be up, not at every event."""
        self._timer = None
        if not self._calls:
            return
        loop = asyncio.get_running_loop()
        left = self._timeout_seconds if self._is_paused else self._heard_at + self._timeout_seconds - loop.time()
        if left <= 0:
            self._end(f"its handler did not answer within {self._timeout_seconds:g} s")
            return
        self._watch_until(loop.time() + left)

    def _watch_until(self, moment: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= moment:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(moment, self._check_time)
