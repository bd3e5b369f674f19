"""HTTP/1.1 to replicas: kept-alive connections, one request at a time on each, nothing between socket and reader.

    ask ──▶ idle connection, or a new one ──▶ head ──▶ read … read ──▶ back to the idle ones
                                                          │ closed before its end: the connection is aborted

Abort     Closing an answer early closes its connection at once; the replica hears it and frees the slot (F-06).
Pressure  Bytes that nobody reads pile up to `BUFFER_BYTES`; then the socket is not read, and the replica stops.
Staleness A kept-alive connection may have been closed by the replica as we wrote. If it ends within a moment and
          without a single byte, the question goes out again on a new connection, to the same replica: nothing was
          begun. Later, or after a byte, it is a failure, and `dispatch.py` decides.
Bounds    A head of `HEAD_BYTES`, a connection in `connect_seconds`, silence as each question says; as many idle
          connections per replica as `MAX_IDLE`, each for less time than a replica keeps it.

Parsing is llhttp's, strict. Runs in one event loop; nothing here is shared between threads.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools
import msgspec

from argosy.gateway.transport import Answer, FailureKind, Headers, Question, ReplicaFailure

BUFFER_BYTES = 256 * 1024
HEAD_BYTES = 32 * 1024
MAX_IDLE = 128
_STALE_SECONDS = 0.25
# After 15 s of nothing, every 5 s, three times. Linux's names; a kernel without them keeps its own pace.
_KEEP_ALIVE = [((socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)] + [
    ((socket.IPPROTO_TCP, getattr(socket, name)), value)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
]


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """headers: on every request (our key). idle_seconds: less than a replica's `keep_alive_seconds`: we close first."""

    headers: tuple[tuple[bytes, bytes], ...] = ()
    connect_seconds: float = 2.0
    idle_seconds: float = 10.0


class ReplicaConnections:
    """The transport of a running gateway. `close` it."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        self._common = b"".join(b"%b: %b\r\n" % header for header in settings.headers)
        self._idle: dict[str, deque[_Connection]] = {}
        self._busy: set[_Connection] = set()

    async def ask(self, address: str, question: Question) -> Answer:
        """Send on an idle connection if there is one, else on a new one. Cancels: closes it. Raises: ReplicaFailure."""
        raw = self._bytes(address, question)
        kept = self._take(address)
        if kept is not None:
            try:
                return await self._send(kept, raw, question)
            except ReplicaFailure:
                if not kept.was_stale:
                    raise
        return await self._send(await self._connect(address), raw, question)

    def give_up(self, address: str, reason: str) -> None:
        """Fail what has no byte of an answer yet."""
        for connection in [*self._busy]:
            if connection.address == address and not connection.has_begun:
                connection.fail(FailureKind.SILENT, reason)

    def keep_only(self, addresses: frozenset[str]) -> None:
        """Close idle connections to anywhere else."""
        for address in [*self._idle]:
            if address not in addresses:
                for connection in self._idle.pop(address):
                    connection.abort()

    async def close(self) -> None:
        """Close every connection; one loop turn later they are gone. Cancels: they are closing."""
        self.keep_only(frozenset())
        for connection in [*self._busy]:
            connection.abort()
        await asyncio.sleep(0)

    async def _send(self, connection: _Connection, raw: bytes, question: Question) -> _Answer:
        self._busy.add(connection)
        answer = connection.start(raw, question.silence_seconds)
        try:
            await answer.head()
        except BaseException:
            connection.abort()
            raise
        return answer

    def _bytes(self, address: str, question: Question) -> bytes:
        own = b"".join([b"%b: %b\r\n" % header for header in question.headers])
        length = b"content-length: %d\r\n" % len(question.body) if question.method != b"GET" else b""
        return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b%b\r\n%b" % (
            question.method,
            question.path,
            address.encode(),
            self._common,
            own,
            length,
            question.body,
        )

    def _take(self, address: str) -> _Connection | None:
        """The idle connection used last: it is the least likely to be stale."""
        idle = self._idle.get(address)
        oldest = asyncio.get_running_loop().time() - self._settings.idle_seconds
        while idle:
            connection = idle.pop()
            if connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, address: str) -> _Connection:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: _Connection(address, self._released, self._lost), host.strip("[]"), int(port)
                )
        except TimeoutError as exc:
            seconds = self._settings.connect_seconds
            raise ReplicaFailure(FailureKind.CONNECT, f"no connection to {address} within {seconds:g} s") from exc
        except (OSError, ValueError) as exc:
            raise ReplicaFailure(FailureKind.CONNECT, f"no connection to {address}: {exc}") from exc
        return connection

    def _released(self, connection: _Connection) -> None:
        """Its answer is whole: keep it for the next question."""
        self._busy.discard(connection)
        idle = self._idle.setdefault(connection.address, deque())
        idle.append(connection)
        if len(idle) > MAX_IDLE:
            idle.popleft().abort()

    def _lost(self, connection: _Connection) -> None:
        """It is closed, by whomever."""
        self._busy.discard(connection)
        idle = self._idle.get(connection.address, ())
        if connection in idle:
            self._idle[connection.address].remove(connection)


class _Connection(asyncio.Protocol):
    """One socket. It has an answer while it is busy, and none while idle."""

    def __init__(
        self, address: str, released: Callable[[_Connection], None], lost: Callable[[_Connection], None]
    ) -> None:
        self.address = address
        self.idle_since = 0.0
        self.was_stale = False
        self._released = released
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._answer: _Answer | None = None
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

    def start(self, raw: bytes, silence_seconds: float | None) -> _Answer:
        """Send a request; its answer comes into the object returned."""
        answer = self._answer = _Answer(self)
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
        except httptools.HttpParserError as exc:
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


class _Answer:
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

    def __init__(self, connection: _Connection) -> None:
        self.status = 0
        self.headers: Headers = ()
        self.has_head = False
        self._connection: _Connection | None = connection
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
