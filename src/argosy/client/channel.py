"""One request, one stream, one error: HTTP to a control plane, and nothing of what is said over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import httpx
import msgspec

from argosy.core.control_api import ERROR_EVENT, HEARTBEAT_SECONDS
from argosy.core.errors import (
    ArgosyError,
    BackendError,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    Unavailable,
)

T = TypeVar("T")

_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS
_MAX_ERROR_BYTES = 2**20
_BY_STATUS: Mapping[int, type[ArgosyError]] = {404: NotFound, 429: Overloaded, 500: ArgosyError, 503: Unavailable}


class _Detail(msgspec.Struct, frozen=True):
    message: str = ""
    reason: str = ""
    param: str | None = None


class _Body(msgspec.Struct, frozen=True):
    error: _Detail = _Detail()


def _below(root: type[ArgosyError]) -> Iterator[type[ArgosyError]]:
    yield root
    for leaf in root.__subclasses__():
        yield from _below(leaf)


def error_of(status: int, retry_after: str | None, body: bytes) -> ArgosyError:
    """The error a response is: the class that the server raised, by its code."""
    try:
        detail = msgspec.json.decode(body, type=_Body).error
    except msgspec.DecodeError:
        detail = _Detail()
    message = detail.message or f"the control plane answered {status} without saying why: look at its log"
    kind = next((each for each in _below(ArgosyError) if each.code == detail.reason), _BY_STATUS.get(status))
    if kind is None:
        kind = InvalidRequest if status < 500 else BackendError
    if issubclass(kind, Overloaded | Unavailable):
        return kind(message, retry_after_seconds=_seconds(retry_after))
    error = kind(message)
    error.param = detail.param
    return error


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else 1.0


class Channel:
    """A control plane's URL, the key it wants, and the connections to it."""

    def __init__(self, url: str, key: str | None, timeout_seconds: float) -> None:
        self.url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS),
            trust_env=False,
        )

    async def close(self) -> None:
        """Idempotent."""
        await self._http.aclose()

    async def call(
        self, method: str, path: str, answer: type[T], *, body: Any = None, query: Mapping[str, str] | None = None
    ) -> T:
        """One request and its whole answer. Reading is tried twice if the connection breaks; nothing else is.

        Cancels: the request may have been done. Raises: what the server raised; DeadlineExceeded; BackendError if
        nobody answers.
        """
        content = None if body is None else msgspec.json.encode(body, enc_hook=str)
        tries = 2 if method == "GET" else 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._send(method, path, content, query, tries)
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"the control plane at {self.url} took longer than {self._timeout_seconds:g} s for {method} {path}: "
                "see whether it is busy (`argosy top`), and try again"
            ) from exc
        if not response.is_success:
            raise error_of(response.status_code, response.headers.get("retry-after"), response.content)
        return self._decoded(response.content, answer)

    async def _send(
        self, method: str, path: str, content: bytes | None, query: Mapping[str, str] | None, tries: int
    ) -> httpx.Response:
        headers = {} if content is None else {"content-type": "application/json"}
        while True:
            tries -= 1
            try:
                return await self._http.request(method, path, content=content, params=query, headers=headers)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as exc:
                if not tries:
                    raise self._lost(exc) from exc
            except httpx.HTTPError as exc:
                raise self._lost(exc) from exc

    async def events(self, path: str, kind: type[T], query: Mapping[str, str] | None = None) -> AsyncGenerator[T]:
        """The events of a server-sent stream, until it ends. Cancels: closes the connection.

        Raises: what the server raised, before or within the stream; BackendError if it falls silent or breaks.
        """
        name = ""
        async with self._stream(path, query, _SILENCE_SECONDS) as response, aclosing(_lines_of(response)) as lines:
            async for line in lines:
                field, _, value = line.partition(":")
                if field == "event":
                    name = value.strip()
                elif field == "data" and name == ERROR_EVENT:
                    raise error_of(500, None, value.encode())
                elif field == "data":
                    yield self._decoded(value.encode(), kind)
                elif not line:
                    name = ""

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[str]:
        """The lines of a text, as they come; there is no limit on the time between two. Cancels: closes it."""
        async with self._stream(path, query, None) as response:
            async for line in response.aiter_lines():
                yield line

    @asynccontextmanager
    async def _stream(
        self, path: str, query: Mapping[str, str] | None, silence_seconds: float | None
    ) -> AsyncIterator[httpx.Response]:
        timeout = httpx.Timeout(self._timeout_seconds, connect=_CONNECT_SECONDS, read=silence_seconds)
        try:
            async with self._http.stream("GET", path, params=query, timeout=timeout) as response:
                if not response.is_success:
                    body = (await response.aread())[:_MAX_ERROR_BYTES]
                    raise error_of(response.status_code, response.headers.get("retry-after"), body)
                yield response
        except httpx.HTTPError as exc:
            raise self._lost(exc) from exc

    def _decoded(self, content: bytes, kind: type[T]) -> T:
        if kind is type(None):
            return None
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as exc:
            raise BackendError(
                f"what answers at {self.url} is no control plane of this version ({exc}): check the URL, "
                "and use the same Argosy on both sides",
                retryable=False,
            ) from exc

    def _lost(self, exc: httpx.HTTPError) -> ArgosyError:
        if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
            return BackendError(f"no control plane answers at {self.url}: start one with `argosy up`")
        what = str(exc) or type(exc).__name__
        return BackendError(f"the connection to the control plane at {self.url} broke ({what}): try again")


async def _lines_of(response: httpx.Response) -> AsyncGenerator[str]:
    """Lines as server-sent events have them. httpx would also split at U+2028 and U+0085, which JSON may hold."""
    rest = bytearray()
    async for chunk in response.aiter_bytes():
        rest += chunk
        if b"\n" in chunk:
            *whole, last = rest.split(b"\n")
            rest = bytearray(last)
            for line in whole:
                yield line.decode(errors="replace").removesuffix("\r")


async def ticking(source: AsyncGenerator[T], seconds: float) -> AsyncGenerator[T | None]:
    """The items of a source, and None whenever none came for so long. Cancels: closes the source."""
    async with aclosing(source):
        coming: asyncio.Future[T] = asyncio.ensure_future(anext(source))
        try:
            while True:
                await asyncio.wait((coming,), timeout=seconds)
                if not coming.done():
                    yield None
                    continue
                try:
                    item = coming.result()
                except StopAsyncIteration:
                    return
                yield item
                coming = asyncio.ensure_future(anext(source))
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
