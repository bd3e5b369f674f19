"""A prediction as an HTTP response: whole with its length, or piece by piece in chunks.

The first piece decides status and headers; nothing is sent before it, so whatever fails until then is a clean error.
After it, an error can only cut the connection, which is how HTTP/1.1 says that a chunked answer is not complete.

When the client goes away, the server's connection cancels the task that runs this, and leaving the generator gives the
job up: at once if it is queued (F-06).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from functools import lru_cache

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from argosy.core.errors import HandlerError
from argosy.core.prediction import Prediction
from argosy.web.errors import log_error

# The connection's own, which a handler cannot know; it must not set them. Source: RFC 9110 §7.6.1, RFC 9112 §6.
_CONNECTION_HEADERS = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "server", "date"}
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}")
_NO_BODY = frozenset({204, 304})

_Header = tuple[bytes, bytes]


class PredictionAnswer(Response):
    """The response made from one request's pieces. Cancels: the pieces are left before `__call__` returns."""

    def __init__(
        self, pieces: AsyncGenerator[Prediction], max_bytes: int, headers: dict[str, str] | None = None
    ) -> None:
        """headers: ours, beside the handler's."""
        self.background = None
        self._pieces = pieces
        self._max_bytes = max_bytes
        self._own_headers = headers or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Raises: what the prediction raises, if no byte has been sent; HandlerError for a wrong answer."""
        try:
            first = await anext(self._pieces)
            status, headers = _status_of(first), _headers_of(first, self._own_headers)
            self._check_size(first)
            if first.is_last:
                body = b"" if status in _NO_BODY else first.body
                headers.append((b"content-length", b"%d" % len(body)))
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
            if status in _NO_BODY:
                raise HandlerError(f"the handler streams an answer with the status {status}, which has no body")
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": first.body, "more_body": True})
            await self._stream(scope, send)
        finally:
            await self._pieces.aclose()  # as `aclosing` does, which costs two coroutines more

    async def _stream(self, scope: Scope, send: Send) -> None:
        try:
            async for piece in self._pieces:
                self._check_size(piece)
                await send({"type": "http.response.body", "body": piece.body, "more_body": not piece.is_last})
        except Exception as error:  # boundary: the status is out, only the cut connection can tell
            log_error(error, scope["path"])
            raise

    def _check_size(self, piece: Prediction) -> None:
        if len(piece.body) > self._max_bytes:
            raise HandlerError(
                f"the handler's answer has {len(piece.body)} bytes, and max_response_size is {self._max_bytes}: "
                "let it answer with less, or start the server with a larger max_response_size",
                status=500,
            )


def _status_of(piece: Prediction) -> int:
    """The status a handler set. Raises: HandlerError for one that HTTP does not know as final."""
    if 200 <= piece.status <= 599:
        return piece.status
    raise HandlerError(f"the handler set the status {piece.status!r}: an HTTP status is 200 to 599", status=503)


def _headers_of(piece: Prediction, own: dict[str, str]) -> list[_Header]:
    """What goes out with a first piece. No content type is added where the handler set none, as TorchServe does.

    Raises: HandlerError for a header that would break the response apart.
    """
    headers = [_content_type(piece.content_type)] if piece.content_type else []
    if piece.headers or own:
        wanted = {**own, **{name.lower(): value for name, value in piece.headers.items()}}
        if piece.content_type:
            wanted.pop("content-type", None)
        headers += [_header(name, value) for name, value in wanted.items() if name not in _CONNECTION_HEADERS]
    return headers


@lru_cache(maxsize=64)
def _content_type(kind: str) -> _Header:
    """A handler answers with the same few types again and again."""
    return _header("content-type", kind)


def _header(name: str, value: str) -> _Header:
    if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
        raise HandlerError(f"the handler set the header {name[:64]!r}, and name or value is not one HTTP can carry")
    return name.encode("ascii"), value.encode("latin-1")
