"""HTTP/1.1 to replicas: kept-alive connections by address. What one of them does is in `connection.py`.

    ask ──▶ idle connection, or a new one ──▶ head ──▶ read … read ──▶ back to the idle ones
                                                          │ closed before its end: the connection is aborted

Abort     Closing an answer early closes its connection at once; the replica hears it and frees the slot (F-06).
Staleness A kept-alive connection may have been closed by the replica as we wrote. If it ends within a moment and
          without a single byte, the question goes out again on a new connection, to the same replica: nothing was
          begun. Later, or after a byte, or if nobody listens there any more, it is a failure, and `dispatch.py`
          decides.
Bounds    A connection in `connect_seconds`, and `MAX_IDLE` idle ones per replica, each for less time than a replica
          keeps it.

Runs in one event loop; nothing here is shared between threads.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from argosy.gateway.connection import Connection, IncomingAnswer
from argosy.gateway.transport import Answer, FailureKind, Question, ReplicaFailure

MAX_IDLE = 128


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
        self._idle: dict[str, deque[Connection]] = {}
        self._busy: set[Connection] = set()

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
        try:
            connection = await self._connect(address)
        except ReplicaFailure as failure:
            if kept is None:
                raise
            # It took our bytes, and is gone: it may have died of them. To look on for free would kill one by one.
            raise ReplicaFailure(FailureKind.RESET, f"the replica is gone: {failure.message}") from failure
        return await self._send(connection, raw, question)

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

    async def _send(self, connection: Connection, raw: bytes, question: Question) -> IncomingAnswer:
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

    def _take(self, address: str) -> Connection | None:
        """The idle connection used last: it is the least likely to be stale."""
        idle = self._idle.get(address)
        oldest = asyncio.get_running_loop().time() - self._settings.idle_seconds
        while idle:
            connection = idle.pop()
            if connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, address: str) -> Connection:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: Connection(address, self._released, self._lost), host.strip("[]"), int(port)
                )
        except TimeoutError as exc:
            seconds = self._settings.connect_seconds
            raise ReplicaFailure(FailureKind.CONNECT, f"no connection to {address} within {seconds:g} s") from exc
        except (OSError, ValueError) as exc:
            raise ReplicaFailure(FailureKind.CONNECT, f"no connection to {address}: {exc}") from exc
        return connection

    def _released(self, connection: Connection) -> None:
        """Its answer is whole: keep it for the next question."""
        self._busy.discard(connection)
        idle = self._idle.setdefault(connection.address, deque())
        idle.append(connection)
        if len(idle) > MAX_IDLE:
            idle.popleft().abort()

    def _lost(self, connection: Connection) -> None:
        """It is closed, by whomever."""
        self._busy.discard(connection)
        idle = self._idle.get(connection.address, ())
        if connection in idle:
            self._idle[connection.address].remove(connection)
