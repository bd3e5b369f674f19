"""Every error as the OpenAI wire shows it: one body, whether it is a response or an event inside a stream.

`error.type` and the status are vLLM's; `error.reason` is our own finer code (`docs/errors.md` lists them all); the
top-level `message` and `object` repeat the text for clients of ms-swift, which look there.

Source: vLLM 0.32 `ErrorResponse`; ms-swift 2 `XRequestConfig` server, `{"message", "object": "error"}`.
"""

from __future__ import annotations

import logging
import math
from typing import Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from argosy.core.errors import ArgosyError, Overloaded, Unauthorized, Unavailable

logger = logging.getLogger(__name__)

TYPES_BY_STATUS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    409: "ConflictError",
    413: "RequestEntityTooLargeError",
    415: "UnsupportedMediaTypeError",
    422: "UnprocessableEntityError",
    429: "OverloadedError",
    500: "InternalServerError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
    507: "InsufficientStorageError",
}
_REASONS_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "payload_too_large"}


class NotReady(Unavailable):
    """The server starts, drains or is dead; which of them is the code."""

    def __init__(self, message: str, *, phase: str) -> None:
        super().__init__(message, retry_after_seconds=1.0)
        self.code = phase


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. code: the HTTP status, also inside a stream, where there is no status any more."""

    message: str
    type: str
    param: str | None
    code: int
    reason: str


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every failed response."""

    error: ErrorDetail
    message: str
    object: Literal["error"] = "error"


def error_body(exc: Exception) -> ErrorBody:
    """The body for any exception. What is not ours is shown as an internal error, without its text."""
    if isinstance(exc, ArgosyError):
        return _body(exc.message, exc.status, exc.code, exc.param)
    if isinstance(exc, HTTPException):
        reason = _REASONS_BY_STATUS.get(exc.status_code, "http_error")
        return _body(str(exc.detail), exc.status_code, reason, None)
    return _body(
        "the server failed on this request and has logged why: try again, and if it stays so, report it with the "
        "x-request-id of this response",
        500,
        "internal_error",
        None,
    )


def error_response(exc: Exception, request: Request) -> Response:
    """The response for any exception; anything that is not an error of ours is logged here, once."""
    body = error_body(exc)
    if body.error.code >= 500:
        log_error(exc, request.scope["path"])
    headers = headers_of(exc)
    return Response(msgspec.json.encode(body), body.error.code, headers=headers, media_type="application/json")


def headers_of(exc: Exception) -> dict[str, str]:
    """What a response to this exception says beside its body, in any shape."""
    headers = dict(exc.headers or {}) if isinstance(exc, HTTPException) else {}
    if isinstance(exc, Overloaded | Unavailable):
        headers["retry-after"] = str(max(1, math.ceil(exc.retry_after_seconds)))
    if isinstance(exc, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return headers


def error_event(exc: Exception, path: str) -> bytes:
    """The last event of a stream that failed after its first byte; no `[DONE]` follows it."""
    body = error_body(exc)
    log_error(exc, path)
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _body(message: str, status: int, reason: str, param: str | None) -> ErrorBody:
    kind = TYPES_BY_STATUS.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
    message = writable(message)
    detail = ErrorDetail(message=message, type=kind, param=param, code=status, reason=reason)
    return ErrorBody(error=detail, message=message)


def writable(text: str) -> str:
    """The text without what JSON cannot carry, and a name may hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def log_error(exc: Exception, path: str) -> None:
    """Log why a request failed, once; a server that is not ready yet has said so already."""
    if isinstance(exc, NotReady):
        return
    if isinstance(exc, ArgosyError | HTTPException):
        logger.warning("request failed", extra={"path": path, "error": str(exc), "reason": type(exc).__name__})
    else:
        logger.error("request failed unexpectedly", extra={"path": path}, exc_info=exc)
