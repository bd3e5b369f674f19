"""A very light HTTP/1.1 client for event streams: the only part of the load generator that runs per token.

It shares the machine with the server it measures, so there is no stream object, no task and no queue per chunk:
`data_received` → httptools → `Answer.body`. Connections are kept alive between requests, but not long enough for
a server's own idle limit to race with us.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from argosy.core.errors import InvalidRequest
from argosy.evals.answer import Answer
from argosy.evals.records import ErrorKind, RequestRecord
from argosy.evals.sse import MalformedStream

# Below the 5 s after which uvicorn, and the 2 s after which some proxies, close an idle connection.
MAX_IDLE_SECONDS = 1.5

Clock = Callable[[], float]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server is. base_path ends without a slash and includes `/v1`."""

    host: str
    port: int
    is_tls: bool
    base_path: str


def parse_target(url: str) -> Target:
    """The server behind `http://host:port`, with or without `/v1`. Raises: InvalidRequest."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise InvalidRequest(f"{url!r} is not the address of a server: write http://127.0.0.1:8000", param="url")
    is_tls = parts.scheme == "https"
    path = parts.path.rstrip("/")
    return Target(
        host=parts.hostname,
        port=port or (443 if is_tls else 80),
        is_tls=is_tls,
        base_path=path if path.endswith("/v1") else f"{path}/v1",
    )


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now = 0.0
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._finished: asyncio.Future[None] | None = None
        self._content_type = ""
        self._ends_with_close = True
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether another request may be sent here."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, answer: Answer, finished: asyncio.Future[None]) -> None:
        """Write `request`; `finished` is set once `answer` is whole or lost."""
        self._parser = httptools.HttpResponseParser(self)
        self._answer, self._finished = answer, finished
        self._content_type, self._ends_with_close = "", True
        if self._transport is None:
            self._lose(ErrorKind.TRUNCATED, "the server closed the connection before the request")
        else:
            self._transport.write(request)

    def abort(self) -> None:
        """Cut the connection now."""
        self._answer = self._finished = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop: parse, timing everything in `data` by one look at the clock."""
        if self._answer is None:
            self.abort()  # bytes that nobody asked for
            return
        self._now = self._clock()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, MalformedStream, msgspec.DecodeError) as error:
            cause = error.__context__ or error
            self._lose(ErrorKind.MALFORMED, f"{type(cause).__name__}: {cause}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: the end of the answer, if it was to end so; else its loss."""
        self._transport = None
        if self._answer is None:
            return
        self._now = self._clock()
        if self._answer.record.status is not None and self._ends_with_close and exc is None:
            self._complete()
        else:
            self._lose(ErrorKind.TRUNCATED, f"the server closed the connection: {exc or 'before the end'}")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        key = name.lower()
        if key == b"content-type":
            self._content_type = value.decode("latin-1").lower()
        elif key in (b"content-length", b"transfer-encoding"):
            self._ends_with_close = False

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if self._answer is not None and status >= 200:
            self._answer.head(status, self._content_type)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if self._answer is not None:
            self._answer.body(body, self._now)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._parser.get_status_code() < 200 or self._answer is None:
            return
        keep_alive = self._parser.should_keep_alive()
        self._complete()
        if not keep_alive and self._transport is not None:
            self._transport.close()

    def _complete(self) -> None:
        if self._answer is not None:
            self._answer.finish(self._now)
        self._release()

    def _lose(self, kind: ErrorKind, detail: str) -> None:
        if self._answer is not None:
            self._answer.fail(kind, detail, self._now)
        self._release()
        if self._transport is not None:
            self._transport.abort()

    def _release(self) -> None:
        finished, self._answer, self._finished = self._finished, None, None
        self.idle_since = self._now
        if finished is not None and not finished.done():
            finished.set_result(None)


class StreamClient:
    """Sends requests to one server, each on a connection of its own while it runs."""

    def __init__(self, target: Target, clock: Clock, *, api_key: str | None, timeout_seconds: float) -> None:
        self._target = target
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._ssl = ssl.create_default_context() if target.is_tls else None
        self._idle: list[_Connection] = []
        host = f"[{target.host}]" if ":" in target.host else target.host
        self._common = (
            f" HTTP/1.1\r\nHost: {host}:{target.port}\r\nUser-Agent: argosy-bench\r\n"
            "Accept: text/event-stream, application/json\r\nContent-Type: application/json\r\n"
        )
        if api_key:
            if not api_key.isascii() or not api_key.isprintable():
                raise InvalidRequest("the API key holds characters that no header can carry", param="api_key")
            self._common += f"Authorization: Bearer {api_key}\r\n"

    async def ask(self, path: str, body: bytes, record: RequestRecord) -> Answer:
        """POST `body` to `path` under the base path and fill `record`; failures end in the record, not as errors.

        Cancels: the connection is cut, the record is marked as interrupted.
        """
        return await self._exchange("POST", path, body, Answer(record))

    async def get(self, path: str) -> Answer:
        """GET a small JSON document."""
        return await self._exchange("GET", path, b"", Answer(RequestRecord(index=0, intended_at=0.0)))

    def close(self) -> None:
        """Cut the idle connections."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    async def _exchange(self, method: str, path: str, body: bytes, answer: Answer) -> Answer:
        head = f"{method} {self._target.base_path}{path}{self._common}Content-Length: {len(body)}\r\n\r\n"
        request = head.encode("latin-1") + body
        connection: _Connection | None = None
        answer.record.sent_at = self._clock()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = self._idle_connection()
                if connection is None or not await self._sent(connection, request, answer):
                    connection = await self._new_connection()
                    await self._sent(connection, request, answer)
        except TimeoutError:
            answer.fail(ErrorKind.TIMEOUT, f"no end within {self._timeout_seconds:g} s", self._clock())
        except OSError as error:
            answer.fail(ErrorKind.CONNECT, str(error), self._clock())
        except asyncio.CancelledError:
            answer.fail(ErrorKind.INTERRUPTED, "stopped by the client", self._clock())
            raise
        finally:
            if connection is not None:
                self._give_back(connection, answer)
        return answer

    async def _sent(self, connection: _Connection, request: bytes, answer: Answer) -> bool:
        """Whether the request reached the server. If not, the server closed an idle connection as we wrote to it.

        Source: RFC 9112, 9.3.1: a request may be sent again if its connection closed before any response.
        """
        was_used = connection.idle_since > 0
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.record.sent_at = self._clock()
        connection.send(request, answer, finished)
        await finished
        if was_used and answer.record.error == ErrorKind.TRUNCATED and answer.record.status is None:
            answer.record.error, answer.record.error_detail, answer.record.ended_at = None, "", 0.0
            return False
        return True

    def _idle_connection(self) -> _Connection | None:
        now = self._clock()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and now - connection.idle_since < MAX_IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    async def _new_connection(self) -> _Connection:
        _, made = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._clock), self._target.host, self._target.port, ssl=self._ssl
        )
        return made

    def _give_back(self, connection: _Connection, answer: Answer) -> None:
        whole = answer.record.error is None or answer.record.error.startswith("http_")
        if whole and connection.is_open:
            self._idle.append(connection)
        else:
            connection.abort()
