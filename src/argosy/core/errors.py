"""Every way Argosy fails, as one tree. Errors are raised, never returned.

    ArgosyError                      .code  .status  .retryable
    ├─ InvalidRequest             400   the caller's fault; never logged above info
    │   ├─ ContextLengthExceeded
    │   └─ UnsupportedParameter         we know this parameter and will not pretend to honour it
    ├─ Unauthorized               401   no key, or a wrong one
    ├─ Forbidden                  403   a good key without the scope; a Host or Origin that is not ours
    ├─ NotFound                   404
    │   └─ ModelNotFound
    ├─ Conflict                   409
    ├─ PayloadTooLarge            413
    ├─ SpecError                  422   a document or a model file is wrong; carries the path in it
    ├─ Overloaded                 429   retryable; .retry_after_seconds
    ├─ EngineError                500   this request failed; the engine lives
    │   ├─ EngineDead             503   the replica must be replaced
    │   ├─ HandlerError           503   an archive's handler failed, or asked for this status itself
    │   ├─ WorkerDied             500   the worker that had the request ended; another one takes its place
    │   │   └─ NotBegun                 it had not begun the request: the next worker gets it, no client hears of it
    │   └─ OutOfResources         507   the request needs more memory than a worker may take
    ├─ ArtifactError              502   fetch or verify failed; .retryable tells which
    ├─ ReplicaError               502   the replica that had the request failed; it was not, or could not be, retried
    ├─ Unavailable                503   no replica can take the request now; .retry_after_seconds
    │   ├─ QueueFull                    as many requests wait for the model as may
    │   └─ NoWorker                     the model has no worker
    ├─ BackendError               503   what runs replicas failed; .retryable: back off and try again, or wait
    │   └─ Unschedulable                waits for capacity, not for code
    ├─ StoreError                 503   desired state could not be read or written; nothing was changed
    └─ DeadlineExceeded           504

A message has three parts: what happened, with which values, what to do now.
"""

from __future__ import annotations


class ArgosyError(Exception):
    """The root: `except ArgosyError` catches everything Argosy raises on purpose."""

    code = "internal_error"
    status = 500
    retryable = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(ArgosyError):
    """The request is wrong; sending it again unchanged will fail again. `param` names the field."""

    code = "invalid_request"
    status = 400


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer together do not fit into what the model holds."""

    code = "context_length_exceeded"


class UnsupportedParameter(InvalidRequest):
    """A parameter we know and this model or engine cannot honour."""

    code = "unsupported_parameter"


class Unauthorized(ArgosyError):
    """No API key, or one we do not know."""

    code = "unauthorized"
    status = 401


class Forbidden(ArgosyError):
    """The key is good but lacks the scope, or the Host or Origin header is not ours."""

    code = "forbidden"
    status = 403


class NotFound(ArgosyError):
    """The named thing does not exist."""

    code = "not_found"
    status = 404


class ModelNotFound(NotFound):
    """No model or adapter is served under that name."""

    code = "model_not_found"


class Conflict(ArgosyError):
    """The thing exists already, or changed since it was read."""

    code = "conflict"
    status = 409


class PayloadTooLarge(ArgosyError):
    """The request body is larger than the server accepts."""

    code = "payload_too_large"
    status = 413


class SpecError(ArgosyError):
    """A document (a spec, a model file, a template) is wrong. The message carries the path inside it."""

    code = "spec_error"
    status = 422


class Overloaded(ArgosyError):
    """The queue is full. Nothing was started; try again after `retry_after_seconds`."""

    code = "overloaded"
    status = 429
    retryable = True

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class EngineError(ArgosyError):
    """This one request failed inside the engine; the engine serves on."""

    code = "engine_error"


class EngineDead(EngineError):
    """The engine cannot serve any more; the replica must be replaced."""

    code = "engine_dead"
    status = 503
    retryable = True


class HandlerError(EngineError):
    """An archive's handler failed on this request, or answered it with a status of its own; the worker lives.

    cause: the exception's type and text, for whoever wrote the handler; shown only where the operator allows it.
    """

    code = "handler_error"
    status = 503

    def __init__(self, message: str, *, status: int = 503, cause: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.cause = cause


class WorkerDied(EngineError):
    """The worker process that had the request died, hung, or was taken away; another one takes its place."""

    code = "worker_died"
    retryable = True


class NotBegun(WorkerDied):
    """The worker ended before it looked at the request, which another one may therefore answer as if nothing was."""

    code = "not_begun"


class OutOfResources(EngineError):
    """A worker needed more memory than it may take."""

    code = "out_of_resources"
    status = 507


class ArtifactError(ArgosyError):
    """A model could not be fetched or verified. `retryable` tells a network fault from a wrong file."""

    code = "artifact_error"
    status = 502

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class ReplicaError(ArgosyError):
    """The replica that had the request failed, and the request was not, or could not be, sent to another."""

    code = "replica_error"
    status = 502
    retryable = True


class Unavailable(ArgosyError):
    """No replica can take the request now; nothing was started. Try again after `retry_after_seconds`."""

    code = "unavailable"
    status = 503
    retryable = True

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueFull(Unavailable):
    """As many requests wait for the model as may."""

    code = "queue_full"


class NoWorker(Unavailable):
    """The model is registered and has no worker that could answer."""

    code = "no_worker"


class BackendError(ArgosyError):
    """What runs replicas failed. `retryable`: back off and try again; else somebody has to change something."""

    code = "backend_error"
    status = 503

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class Unschedulable(BackendError):
    """There is no capacity for it now. It waits; nobody has to change code."""

    code = "unschedulable"


class StoreError(ArgosyError):
    """Desired state could not be read or written (disk full, I/O error). What was stored before is untouched."""

    code = "store_error"
    status = 503
    retryable = True


class DeadlineExceeded(ArgosyError):
    """The request did not finish within its deadline."""

    code = "deadline_exceeded"
    status = 504
