"""A worker's socket on the event loop: commands out, events in.

A command is written at once if the worker waits for it; those that follow while it works are written together, once a
turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec

from argosy.core.errors import EngineError
from argosy.handlers.worker.messages import EVENTS, Command, Event, FrameBuffer, Pong, frame


class Channel(asyncio.Protocol):
    """The server's end. on_event: each event but pongs. on_lost: once, when the worker closed its end or we did.

    num_unanswered_pings: how many were sent since anything last came back. fault: what the worker sent wrongly, "" =
    nothing; the connection is then closed.
    """

    def __init__(self, on_event: Callable[[Event], None], on_lost: Callable[[], None]) -> None:
        self.num_unanswered_pings = 0
        self.fault = ""
        self._on_event = on_event
        self._on_lost = on_lost
        self._buffer = FrameBuffer()
        self._unwritten: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._is_lost = False

    def send(self, command: Command, *, is_urgent: bool = True) -> None:
        """Write the command, now or with others. After the worker's end it goes nowhere.

        Raises: EngineError if it is too long.
        """
        body = frame(command)
        if self._transport is None or self._is_lost:
            return
        if is_urgent and not self._unwritten:
            self._transport.write(body)
            return
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unwritten.append(body)

    def pause(self) -> None:
        """Read no further for now: the worker waits once the socket is full."""
        if self._transport is not None and not self._is_lost:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._is_lost:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close our end: an idle worker then leaves. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        self._lose()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes from the worker."""
        self.num_unanswered_pings = 0
        try:
            for body in self._buffer.push(data):
                event: Event = EVENTS.decode(body)
                if not isinstance(event, Pong):
                    self._on_event(event)
        except (EngineError, msgspec.DecodeError, RecursionError) as exc:
            self.fault = f"it sent what is no message: {exc}"
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker is gone."""
        del exc
        self._lose()

    def _flush(self) -> None:
        if self._transport is not None and not self._is_lost:
            self._transport.write(b"".join(self._unwritten))
        self._unwritten.clear()

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._on_lost()
