"""A worker's socket on the event loop: commands out, events in, a bounded number of them.

While nobody takes the events the socket is not read, so a handler that streams waits for its readers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

import msgspec

from argosy.core.errors import EngineError
from argosy.handlers.worker.messages import EVENTS, Command, Event, FrameBuffer, Pong, frame

_MAX_WAITING_EVENTS = 64


class Channel(asyncio.Protocol):
    """The server's end. num_unanswered_pings: how many were sent since anything last came back.

    fault: what the worker sent wrongly, "" = nothing; the connection is then closed.
    """

    def __init__(self) -> None:
        self.num_unanswered_pings = 0
        self.fault = ""
        self._buffer = FrameBuffer()
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._is_lost = False

    @property
    def is_lost(self) -> bool:
        """Whether the worker closed its end, which it does only by ending."""
        return self._is_lost

    def send(self, command: Command) -> None:
        """Write the command. After the worker's end it goes nowhere. Raises: EngineError if it is too long."""
        body = frame(command)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(body)

    async def take(self) -> Event | None:
        """The next event; None once the worker is gone and everything it sent was taken. One taker at a time."""
        while not self._events:
            if self._is_lost:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.popleft()
        if self._is_paused and not self._events and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return event

    def close(self) -> None:
        """Close our end: an idle worker then leaves. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        self._is_lost = True
        self._wake()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes from the worker."""
        try:
            for body in self._buffer.push(data):
                self._note(EVENTS.decode(body))
        except (EngineError, msgspec.DecodeError) as exc:
            self.fault = f"it sent what is no message: {exc}"
            self.close()
            return
        if len(self._events) > _MAX_WAITING_EVENTS and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker is gone."""
        del exc
        self._is_lost = True
        self._wake()

    def _note(self, event: Event) -> None:
        self.num_unanswered_pings = 0
        if not isinstance(event, Pong):
            self._events.append(event)
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
