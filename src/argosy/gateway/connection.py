"""One connection to a replica, and the answer that comes on it: from socket to reader with nothing between.

Pressure  Bytes that nobody reads pile up to `BUFFER_BYTES`; then the socket is not read, and the replica stops.
Bounds    A head of `HEAD_BYTES`; silence as the question says, by one timer however many bytes come.
Parsing   llhttp's, strict. An answer that nobody asked for ends the connection: it must not become the next one's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import httptools

from argosy.gateway.transport import FailureKind, Headers, ReplicaFailure

BUFFER_BYTES = 256 * 1024
HEAD_BYTES = 32 * 1024
_STALE_SECONDS = 0.25
# After 15 s of nothing, every 5 s, three times. Linux's names; a kernel without them keeps its own pace.
_KEEP_ALIVE = [((socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)] + [
    ((socket.IPPROTO_TCP, getattr(socket, name)), value)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
]


class Connection(asyncio.Protocol):
    """One socket. It has an answer while it is busy, and none while idle."""

    def __init__(
        self, address: str, released: Callable[[Connection], None], lost: Callable[[Connection], None]
    ) -> None:
        self.address = address
        self.idle_since = 0.0
        self.was_stale = False
        self._released = released
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._answer: IncomingAnswer | None = None
        self._is_first = True
        self._is_paused = False
        self._sent_at = self._heard_at = 0.0
        self._head_bytes = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._has_length = False
        self._silence_seconds = 0.0
        self._silence: asyncio.TimerHandle | None = None

    # --- what the pool and the answer call

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the answer has come."""
        return self._heard_at > 0.0

    def start(self, raw: bytes, silence_seconds: float | None) -> IncomingAnswer:
        """Send a request; its answer comes into the object returned."""
        answer = self._answer = IncomingAnswer(self)
        self._sent_at = self._loop.time()
        self._heard_at, self._head_bytes, self._headers, self._has_length = 0.0, 0, [], False
        if silence_seconds is not None:
            self._silence_seconds = silence_seconds
            self._silence = self._loop.call_later(silence_seconds, self._check_silence)
        self._transport.write(raw)
        return answer

    def fail(self, kind: FailureKind, message: str) -> None:
        """End the answer with a failure, and the connection with it."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(ReplicaFailure(kind, message))
        self.abort()

    def abort(self) -> None:
        """Close at once; the replica sees a reset."""
        self._answer = None
        self._stop_timer()
        self._transport.abort()

    def pause(self) -> None:
        """Read no more until `resume`."""
        self._is_paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._is_paused = False
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open. The kernel asks after the other side while nothing passes: a host may vanish."""
        self._transport = cast(asyncio.Transport, transport)
        if (connected := transport.get_extra_info("socket")) is not None:
            for option, value in _KEEP_ALIVE:
                connected.setsockopt(*option, value)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer; from a replica that was asked nothing, they are the end of the connection."""
        if self._answer is None:
            self.abort()
            return
        self._heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self.fail(FailureKind.INVALID, f"the replica does not answer in HTTP/1.1 ({exc})")
            return
        if self._answer is not None and not self._answer.has_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.fail(FailureKind.INVALID, f"the head of the replica's answer is over {HEAD_BYTES} bytes")

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed: while an answer is under way, that is a failure, unless its end was to be marked by it."""
        self._stop_timer()
        self._lost(self)
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if answer.has_head and not self._has_length:
            answer.end()
            return
        waited = self._loop.time() - self._sent_at
        self.was_stale = not self._is_first and not self.has_begun and waited < _STALE_SECONDS
        answer.fail(ReplicaFailure(FailureKind.RESET, "the replica closed the connection before its answer ended"))

    # --- what the parser calls

    def on_message_begin(self) -> None:
        """A second answer to one question would be taken for the answer to the next: that must never be."""
        if self._answer is None:
            raise httptools.HttpParserCallbackError("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name = name.lower()
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > 2 * HEAD_BYTES:
            raise httptools.HttpParserCallbackError("too large a head")
        self._has_length = self._has_length or name in (b"content-length", b"transfer-encoding")
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there, unless it is an interim one (100 to 199)."""
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []
        elif self._answer is not None:
            self._answer.begin(status, self._headers)

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        if self._answer is not None:
            self._answer.add(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        answer = self._answer
        if answer is None or not answer.has_head:
            return
        self._answer = None
        self._stop_timer()
        answer.end()
        if self._parser.should_keep_alive() and not self._transport.is_closing():
            self._is_first = False
            self.idle_since = self._loop.time()
            if self._is_paused:
                self.resume()
            self._released(self)
        else:
            self._transport.abort()

    # --- silence

    def _check_silence(self) -> None:
        """One timer for the whole answer, however many bytes come: it looks when the last of them came."""
        left = max(self._sent_at, self._heard_at) + self._silence_seconds - self._loop.time()
        if self._answer is None:
            self._silence = None
        elif left > 0 or self._answer.is_full:
            self._silence = self._loop.call_later(max(left, 1.0), self._check_silence)
        else:
            self.fail(FailureKind.SILENT, f"the replica sent nothing for {self._silence_seconds:g} s")

    def _stop_timer(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None


class IncomingAnswer:
    """What has come of an answer and was not read yet."""

    __slots__ = (
        "_bytes",
        "_connection",
        "_failure",
        "_is_whole",
        "_pieces",
        "_waiter",
        "has_head",
        "headers",
        "status",
    )

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: Headers = ()
        self.has_head = False
        self._connection: Connection | None = connection
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._is_whole = False
        self._failure: ReplicaFailure | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether the reader is so far behind that the socket is not read."""
        return self._bytes > BUFFER_BYTES

    async def head(self) -> None:
        """Return once status and headers are there. Raises: ReplicaFailure."""
        while not self.has_head:
            await self._wait()

    async def read(self) -> bytes:
        """What has come since the last time; b"" at the end. Raises: ReplicaFailure."""
        while not self._pieces:
            if self._is_whole:
                return b""
            await self._wait()
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        was_full, self._bytes = self.is_full, 0
        if was_full and self._connection is not None:
            self._connection.resume()
        return found

    def close(self) -> None:
        """Give it up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    # --- what the connection calls

    def begin(self, status: int, headers: Headers) -> None:
        """The head has come."""
        self.status, self.headers, self.has_head = status, headers, True
        self._wake()

    def add(self, body: bytes) -> None:
        """Some of the body has come."""
        was_full = self.is_full
        self._pieces.append(body)
        self._bytes += len(body)
        if self.is_full and not was_full and self._connection is not None:
            self._connection.pause()
        self._wake()

    def end(self) -> None:
        """It is whole; the connection is not ours any more."""
        self._is_whole, self._connection = True, None
        self._wake()

    def fail(self, failure: ReplicaFailure) -> None:
        """It will never be whole. What came before can still be read."""
        self._failure, self._connection = failure, None
        self._wake()

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
