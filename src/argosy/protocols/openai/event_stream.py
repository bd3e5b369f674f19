"""The two responses of a generation: `EventStream` (server-sent events) and `WholeAnswer` (one JSON body).

Both enter the generation before they send a byte, so a full queue is still a 429; both leave it, whatever happens,
before they return, so a client that goes away costs nothing from then on (the abort law, F-06). Neither relies on
the garbage collector, nor on the client reading: going away is heard on `receive`, also while `send` is blocked.

The first event waits for the first token (or for the first keep-alive): an engine that fails at once is still a
clean 500, and role and first text travel in one write. Later failures are an `error` event, with no `[DONE]`.

A gateway counts tokens without reading chunks: a request with the header `x-argosy-usage: 1` gets a comment line
`: usage {"prompt_tokens": …, "completion_tokens": …, "cached_tokens": …}` in front of the last event, an error too.

Source: design.md section 5; WHATWG HTML, "Server-sent events" (comment lines begin with a colon).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from argosy.serving.delta import Delta, Usage
from argosy.serving.timings import Timings
from argosy.web.errors import error_event

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15.0  # Well under the 60 s after which common proxies drop a silent connection.
KEEP_ALIVE = b": keep-alive\n\n"
USAGE_HEADER = b"x-argosy-usage"

_encode = msgspec.json.Encoder().encode

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class DeltaSource(Protocol):
    """What a response streams from: a `serving.Generation`, or several as one (`PromptBatch`)."""

    @property
    def usage(self) -> Usage: ...

    @property
    def timings(self) -> Timings: ...

    async def __aenter__(self) -> Self: ...

    def __aiter__(self) -> AsyncIterator[Delta]: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Chunks(Protocol):
    """Turns deltas into events. `is_complete` once every answer has its finish reason."""

    is_complete: bool

    def opening(self) -> bytes: ...

    def event(self, delta: Delta) -> bytes: ...

    def closing(self) -> bytes: ...


class Fold(Protocol):
    """Collects deltas into one body."""

    def add(self, delta: Delta) -> None: ...

    def body(self) -> bytes: ...


class EventStream(Response):
    """A generation as server-sent events. Cancels: the generation is left before `__call__` returns."""

    def __init__(self, source: DeltaSource, chunks: Chunks, *, keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> None:
        super().__init__()
        self.raw_headers = [*_HEADERS]
        self._source = source
        self._chunks = chunks
        self._keep_alive_seconds = keep_alive_seconds
        self._tells_usage = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request. Raises: what the generation raises, if no byte has been sent."""
        writer = _Writer(send, self.raw_headers)
        self._tells_usage = (USAGE_HEADER, b"1") in scope["headers"]
        keep_alive = _keep_alive(writer, self._keep_alive_seconds)
        await _until_client_leaves(self._run(writer, scope["path"]), _disconnected(receive), keep_alive)

    async def _run(self, writer: _Writer, path: str) -> None:
        try:
            await writer.end(await self._events(writer))
        except OSError:
            logger.info("client went away while being written to", extra={"path": path})
        except Exception as error:  # boundary: past the first byte an error can only be an event
            if not writer.has_started:
                raise
            await writer.end(self._usage() + error_event(error, path))

    async def _events(self, writer: _Writer) -> bytes:
        """Write every event but the last ones, and return those once the generation has been left."""
        chunks = self._chunks
        pending = chunks.opening()
        async with self._source as source:
            async for delta in source:
                pending += chunks.event(delta)
                if chunks.is_complete:
                    break
                if pending:
                    await writer.write(pending)
                    pending = b""
        return pending + self._usage() + chunks.closing()

    def _usage(self) -> bytes:
        """The comment for a gateway, if it asked."""
        return b": usage " + _encode(self._source.usage) + b"\n\n" if self._tells_usage else b""


class WholeAnswer(Response):
    """A generation folded into one JSON body. Cancels: the generation is left before `__call__` returns."""

    media_type = "application/json"

    def __init__(self, source: DeltaSource, fold: Fold) -> None:
        super().__init__()
        self._source = source
        self._fold = fold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request. Raises: what the generation raises; nothing has been sent by then."""
        await _until_client_leaves(self._run(scope, receive, send), _disconnected(receive))

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._source as source:
            async for delta in source:
                self._fold.add(delta)
        await Response(self._fold.body(), media_type=self.media_type)(scope, receive, send)


class _Writer:
    """Sends body bytes; the headers go out with the first."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self.has_started = False
        self.has_ended = False
        self.is_sending = False
        self.sent = 0

    async def write(self, body: bytes) -> None:
        """Send `body`; waits while the client is behind. Raises: OSError if it has gone."""
        if not self.has_started:
            await self._start()
        self.is_sending = True
        try:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
        finally:
            self.is_sending = False
        self.sent += 1

    async def end(self, body: bytes) -> None:
        """Send `body` and end the response."""
        self.has_ended = True
        if not self.has_started:
            await self._start()
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self) -> None:
        self.has_started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})


async def _until_client_leaves(work: Coroutine[Any, Any, None], *companions: Coroutine[Any, Any, None]) -> None:
    """Run `work` with companions beside it; when a companion returns, the client is gone and the work is cancelled.

    Not a TaskGroup, because that would wrap the error of the work, which is to reach the error handlers as it is.
    Cancels: the work and its companions have ended before this returns or raises. Raises: what the work raises.
    """
    task = asyncio.create_task(work)
    beside = [asyncio.create_task(companion) for companion in companions]
    try:
        await asyncio.wait([task, *beside], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (task, *beside):
            each.cancel()  # nothing happens to those that have ended
        await asyncio.wait([task, *beside])
    if not task.cancelled():
        task.result()


async def _disconnected(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _keep_alive(writer: _Writer, seconds: float) -> None:
    """Write a comment whenever nothing was written for so long. Returns if the client is gone."""
    while True:
        sent = writer.sent
        await asyncio.sleep(seconds)
        if writer.sent == sent and not writer.is_sending and not writer.has_ended:
            try:
                await writer.write(KEEP_ALIVE)
            except OSError:
                return
