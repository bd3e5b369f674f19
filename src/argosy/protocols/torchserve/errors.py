"""Every error in TorchServe's shape: `{"code": 503, "type": "ServiceUnavailableException", "message": "…"}`.

One server speaks several protocols, so the shape goes by the path: OpenAI's paths keep OpenAI's. `type` is the name of
the Java exception TorchServe would have thrown; the table below says which of ours that is.

Source: ExceptionHandler and HttpRequestHandlerChain of TorchServe 0.12.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from argosy.core.errors import (
    ArgosyError,
    ArtifactError,
    Conflict,
    DeadlineExceeded,
    EngineDead,
    EngineError,
    Forbidden,
    HandlerError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    NoWorker,
    OutOfResources,
    Overloaded,
    PayloadTooLarge,
    QueueFull,
    SpecError,
    Unauthorized,
    Unavailable,
    WorkerDied,
)
from argosy.protocols.torchserve.answers import encode
from argosy.protocols.torchserve.settings import WireSettings
from argosy.web.errors import error_response, headers_of, log_error, writable

OPENAI_PREFIXES = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/models", "/tokenize", "/detokenize")
_KSERVE_VERBS = (":predict", ":explain")

_TYPES: dict[type[ArgosyError], str] = {
    InvalidRequest: "BadRequestException",
    Unauthorized: "InvalidKeyException",
    Forbidden: "ForbiddenException",
    ModelNotFound: "ModelNotFoundException",
    NotFound: "ModelVersionNotFoundException",
    Conflict: "ConflictStatusException",
    PayloadTooLarge: "RequestEntityTooLargeException",
    SpecError: "InvalidModelException",
    ArtifactError: "DownloadArchiveException",
    Overloaded: "ServiceUnavailableException",
    Unavailable: "ServiceUnavailableException",
    EngineDead: "ServiceUnavailableException",
    DeadlineExceeded: "RequestTimeoutException",
    EngineError: "InternalServerException",
    ArgosyError: "InternalServerException",
}
_STATUSES: dict[type[ArgosyError], int] = {SpecError: 400, ArtifactError: 400}
_TYPES_BY_STATUS = {
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    501: "NotImplementedException",
}
METHOD_NOT_ALLOWED = "Requested method is not allowed, please refer to API document."
_TEXTS_BY_STATUS = {
    404: "Requested resource is not found, please refer to API document.",
    405: METHOD_NOT_ALLOWED,
}
_BAD_TOKEN = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
_INTERNAL = (
    "the server failed on this request and has logged why: try again, and if it stays so, report it with the "
    "x-request-id of this response"
)


class WireError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a failed response. reason, cause: ours; left out where only TorchServe's members are wanted."""

    code: int
    type: str
    message: str
    reason: str = ""
    cause: str = ""


def rejection(status: int, message: str) -> bytes:
    """The body of an answer that is given before any route is asked: not HTTP, too slow, too large a head."""
    kind = "ServiceUnavailableException" if status == 503 else "BadRequestException"
    return encode(WireError(code=status, type=kind, message=message))


class Refusal(HTTPException):
    """An answer that TorchServe has its own status and exception name for, and no error of ours says."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(status, message)
        self.kind = kind


class ErrorShape:
    """Renders errors by the family of the path. openai_paths: whether this listener has the OpenAI API."""

    def __init__(self, settings: WireSettings, *, openai_paths: bool) -> None:
        self._settings = settings
        self._openai_paths = openai_paths

    def render(self, exc: Exception, request: Request) -> Response:
        """The response for any exception. What is a fault is logged here, once; a refusal for want of room is not."""
        if self._is_openai(request):
            return error_response(exc, request)
        error = self._error(exc, request)
        if error.code >= 500 and not isinstance(exc, Unavailable):
            log_error(exc, request.scope["path"])
        headers = headers_of(exc)
        if error.code == 400:
            headers.pop("www-authenticate", None)
        return Response(encode(error), error.code, headers=headers, media_type="application/json")

    def _is_openai(self, request: Request) -> bool:
        if request.scope.get("state", {}).get("is_openai"):
            return True
        path = request.scope["path"]
        return self._openai_paths and path.startswith(OPENAI_PREFIXES) and not path.endswith(_KSERVE_VERBS)

    def _error(self, exc: Exception, request: Request) -> WireError:
        if isinstance(exc, Refusal):
            return WireError(code=exc.status_code, type=exc.kind, message=writable(exc.detail))
        if isinstance(exc, HTTPException):
            status = exc.status_code
            kind = _TYPES_BY_STATUS.get(status, "BadRequestException")
            return WireError(code=status, type=kind, message=_TEXTS_BY_STATUS.get(status, writable(exc.detail)))
        if not isinstance(exc, ArgosyError):
            return WireError(code=500, type="InternalServerException", message=_INTERNAL)
        if self._settings.is_strict:
            return _strict(exc, request.scope.get("path_params", {}))
        cause = exc.cause if isinstance(exc, HandlerError) and self._settings.shows_causes else ""
        message = writable(_led(exc))
        return WireError(code=_status(exc), type=_type(exc), message=message, reason=exc.code, cause=writable(cause))


def _strict(exc: ArgosyError, path_params: dict[str, Any]) -> WireError:
    """As TorchServe, to the letter."""
    status, message = _status(exc), exc.message
    if isinstance(exc, Unauthorized):
        status, message = 400, _BAD_TOKEN
    elif isinstance(exc, QueueFull | NoWorker) and "model" in path_params:
        message = no_worker_text(path_params["model"], path_params.get("version"))
    elif isinstance(exc, NotFound) and "model" in path_params:
        version = None if isinstance(exc, ModelNotFound) else path_params.get("version")
        message = not_found_text(path_params["model"], version)
    elif isinstance(exc, WorkerDied):
        message = "Worker died."
    elif isinstance(exc, OutOfResources):
        message = "Out of resources"
    return WireError(code=status, type=_type(exc), message=writable(message))


def no_worker_text(model: str, version: str | None) -> str:
    """What TorchServe says of a model that nobody can answer for, unbalanced quotes included."""
    named = f'Model "{model}" Version {version}"' if version else f'Model "{model}"'
    return (
        f"{named} has no worker to serve inference request. Please use scale workers API to add workers. "
        "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
    )


def not_found_text(model: str, version: str | None) -> str:
    """What TorchServe says of a name it does not have; version: if only that is unknown."""
    return f"Model version: {version} does not exist for model: {model}" if version else f"Model not found: {model}"


def _led(exc: ArgosyError) -> str:
    """TorchServe's text first, where clients may look for it, then ours."""
    lead = "Worker died." if isinstance(exc, WorkerDied) else "Out of resources"
    if not isinstance(exc, WorkerDied | OutOfResources) or exc.message.startswith(lead):
        return exc.message
    return f"{lead.removesuffix('.')}: {exc.message}" if isinstance(exc, OutOfResources) else f"{lead} {exc.message}"


def _status(exc: ArgosyError) -> int:
    return next((_STATUSES[kind] for kind in type(exc).__mro__ if kind in _STATUSES), exc.status)


def _type(exc: ArgosyError) -> str:
    return next(_TYPES[kind] for kind in type(exc).__mro__ if kind in _TYPES)
