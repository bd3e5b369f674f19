"""Answers that go on: changes as server-sent events, log lines as text. Bounded in number, and ended together.

A stream begins at once, so its reader knows that it is connected before anything happens; while nothing does, a
comment says so every `HEARTBEAT_SECONDS`. A reader that goes away ends its stream: the connection cancels the task that
answers, and the source is closed before it returns (the abort law). One that reads too slowly holds nobody up: its
source keeps only the last state of each resource, and the connection is cut when it stands still (F-06).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from argosy.core.control_api import ERROR_EVENT, HEARTBEAT_SECONDS
from argosy.core.errors import ArgosyError, Overloaded
from argosy.web.errors import error_event

T = TypeVar("T")

_MAX_STREAMS = 256
_HEARTBEAT = b": nothing new\n\n"
_EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_TEXT = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-cache")]


class Streams:
    """All streams of one server."""

    def __init__(self, max_streams: int = _MAX_STREAMS, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self.max_streams = max_streams
        self.heartbeat_seconds = heartbeat_seconds
        self.num_open = 0
        self.ended = asyncio.Event()

    def events(self, source: AsyncGenerator[T]) -> StreamResponse:
        """Each item as one event, in JSON. Raises: Overloaded if too many streams are open."""
        return self._opened(_as_events(source), _EVENTS, _HEARTBEAT)

    def lines(self, source: AsyncGenerator[str]) -> StreamResponse:
        """Each item as one line of text. Raises: Overloaded if too many streams are open."""
        return self._opened(_as_lines(source), _TEXT, b"")

    def end(self) -> None:
        """End all of them, and those that come: the server is going."""
        self.ended.set()

    def _opened(
        self, source: AsyncGenerator[bytes], headers: list[tuple[bytes, bytes]], heartbeat: bytes
    ) -> StreamResponse:
        if self.num_open >= self.max_streams:
            raise Overloaded(
                f"{self.num_open} streams are open, as many as may be: close some, or ask without a stream",
                retry_after_seconds=self.heartbeat_seconds,
            )
        return StreamResponse(self, source, headers, heartbeat)


class StreamResponse(Response):
    """One stream. Cancels: the source is closed before `__call__` returns."""

    def __init__(
        self,
        streams: Streams,
        source: AsyncGenerator[bytes],
        headers: list[tuple[bytes, bytes]],
        heartbeat: bytes,
    ) -> None:
        super().__init__()
        self.raw_headers = [*headers]
        self._streams = streams
        self._source = source
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until the source ends, the reader goes, or the server does."""
        self._streams.num_open += 1
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await self._source.aclose()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await send({"type": "http.response.body", "body": self._heartbeat, "more_body": True})
            async with aclosing(self._source) as source:
                await self._relay(source, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.num_open -= 1

    async def _relay(self, source: AsyncGenerator[bytes], send: Send) -> None:
        over = asyncio.create_task(self._streams.ended.wait())
        coming = asyncio.create_task(_next(source))
        try:
            while True:
                await asyncio.wait(
                    (coming, over), timeout=self._streams.heartbeat_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if coming.done():
                    piece = coming.result()
                    if piece is None:
                        return
                    coming = asyncio.create_task(_next(source))
                elif over.done():
                    return
                else:
                    piece = self._heartbeat
                if piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            for task in (coming, over):
                task.cancel()
            await asyncio.wait((coming, over))


async def _next(source: AsyncGenerator[bytes]) -> bytes | None:
    return await anext(source, None)


async def _as_events(source: AsyncGenerator[T]) -> AsyncGenerator[bytes]:
    encode = msgspec.json.Encoder().encode
    async with aclosing(source) as items:
        try:
            async for item in items:
                yield b"data: " + encode(item) + b"\n\n"
        except ArgosyError as error:
            yield b"event: " + ERROR_EVENT.encode() + b"\n" + error_event(error, "")


async def _as_lines(source: AsyncGenerator[str]) -> AsyncGenerator[bytes]:
    async with aclosing(source) as lines:
        try:
            async for line in lines:
                yield line.encode("utf-8", "backslashreplace") + b"\n"
        except ArgosyError as error:
            yield f"(the log ends here: {error.message})\n".encode("utf-8", "backslashreplace")
