"""`OPTIONS /` and `/api-description`: OpenAPI 3.0.1 in TorchServe's own words, because its clients are made from it.

(The server's own, complete description is `/openapi.json`.) Only the routes TorchServe lists are listed, under its
operation ids. 210 is what it declares for partial success; what is sent is 206.

Source: contract of TorchServe 0.12, `OPTIONS /` of its inference and management ports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

import argosy

_WORDS = {
    200: "OK",
    202: "Accepted",
    210: "Partial Success",
    400: "Bad request",
    404: "Model not found",
    408: "Request Timeout Error",
    409: "Model already registered",
    500: "Internal Server Error",
    503: "No worker is available to serve request",
}
_SCALE = (200, 202, 210, 400, 404, 500)
_PATH_PARTS = {"model_name": "Name of the model.", "model_version": "Version of the model."}


class _Parameter(msgspec.Struct, frozen=True):
    kind: str
    about: str


_QUERY = {
    "limit": _Parameter("integer", "Most models to list, 100 at most and by default."),
    "next_page_token": _Parameter("string", "Where this page begins: what the page before ended with."),
    "url": _Parameter("string", "The archive: a file of the model store, or a URL the operator has allowed."),
    "model_name": _Parameter("string", "Name to register it under, instead of the archive's own."),
    "handler": _Parameter("string", "Handler to use, instead of the archive's own."),
    "runtime": _Parameter("string", "Runtime of the handler; python is the only one."),
    "batch_size": _Parameter("integer", "Most requests one call of the handler gets."),
    "max_batch_delay": _Parameter("integer", "Longest wait for a batch to fill, in milliseconds."),
    "response_timeout": _Parameter("integer", "Longest call of the handler, in seconds."),
    "startup_timeout": _Parameter("integer", "Longest start of a worker, in seconds."),
    "initial_workers": _Parameter("integer", "Workers to start."),
    "synchronous": _Parameter("boolean", "Answer only when the workers are there, or gone."),
    "s3_sse_kms": _Parameter("boolean", "Read and without effect: archives do not come from S3."),
    "min_worker": _Parameter("integer", "Workers that shall run."),
    "max_worker": _Parameter("integer", "Most workers that may run; as many as min_worker by default."),
    "number_gpu": _Parameter("integer", "Read and without effect: the model's configuration names its devices."),
    "timeout": _Parameter("integer", "Longest wait of a synchronous call, in seconds."),
    "name[]": _Parameter("string", "A metric to show; may come several times. Without it, all are shown."),
}


class _Row(msgspec.Struct, frozen=True):
    method: str
    path: str
    operation: str
    about: str
    query: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200, 500)
    takes_body: bool = False


_REGISTER = (
    "url", "model_name", "handler", "runtime", "batch_size", "max_batch_delay", "response_timeout",
    "startup_timeout", "initial_workers", "synchronous", "s3_sse_kms",
)  # fmt: skip
_AUTO_SCALE = ("min_worker", "max_worker", "number_gpu", "synchronous", "timeout")
_UNREGISTER = ("synchronous", "timeout")
_PREDICT = (200, 404, 500, 503)
_MODEL = "/models/{model_name}"
_VERSION = "/models/{model_name}/{model_version}"

_ASK = "Ask a model for a prediction."
_DESCRIBE = "Describe a version of a model and its workers."
_SCALE_ABOUT = "Run more or fewer workers of a version."
_REMOVE = "Unregister a version, once its requests are answered."

_COMMON = (
    _Row("options", "/", "apiDescription", "Get this document."),
    _Row("get", "/api-description", "api-description", "Get this document."),
)
_METRICS = (_Row("get", "/metrics", "metrics", "Get the server's metrics.", ("name[]",)),)
_INFERENCE = (
    _Row("get", "/ping", "ping", "Get whether the server is healthy."),
    _Row("post", "/v1/models/{model_name}:predict", "predictions", _ASK, (), _PREDICT, True),
    _Row("post", "/v2/models/{model_name}/infer", "predictions", _ASK, (), _PREDICT, True),
    _Row("post", "/predictions/{model_name}", "predictions", _ASK, (), _PREDICT, True),
    _Row("post", "/predictions/{model_name}/{model_version}", "version_predictions", _ASK, (), _PREDICT, True),
)
_MANAGEMENT = (
    _Row("get", "/models", "listModels", "List models by name.", ("limit", "next_page_token")),
    _Row("post", "/models", "registerModel", "Register an archive.", _REGISTER, (200, 202, 210, 400, 404, 409, 500)),
    _Row("get", _MODEL, "describeModel", _DESCRIBE, (), (200, 404, 500)),
    _Row("put", _MODEL, "setAutoScale", _SCALE_ABOUT, _AUTO_SCALE, _SCALE),
    _Row("delete", _MODEL, "unregisterModel", _REMOVE, _UNREGISTER, (200, 202, 404, 408, 500)),
    _Row("get", _VERSION, "version_describeModel", _DESCRIBE, (), (200, 404, 500)),
    _Row("put", _VERSION, "version_setAutoScale", _SCALE_ABOUT, _AUTO_SCALE, _SCALE),
    _Row("delete", _VERSION, "version_unregisterModel", _REMOVE, _UNREGISTER, (200, 202, 404, 408, 500)),
    _Row("put", f"{_VERSION}/set-default", "setDefault", "Make a version the default one.", (), (200, 404, 500)),
)
_ERROR = {
    "type": "object",
    "required": ["code", "type", "message"],
    "properties": {
        "code": {"type": "integer", "description": "Error code."},
        "type": {"type": "string", "description": "Error type."},
        "message": {"type": "string", "description": "Error message."},
    },
}


def document(*, inference: bool, management: bool) -> dict[str, Any]:
    """The description of a listener with these APIs; with neither, of the metrics' own."""
    rows = [*(_INFERENCE if inference else ()), *(_MANAGEMENT if management else ())]
    return _document([*(_COMMON if rows else ()), *rows, *_METRICS], "TorchServe APIs")


def model_document(model: str) -> dict[str, Any]:
    """How one model is asked for predictions, where its handler does not say."""
    rows = (row for row in _INFERENCE if "{model_name}" in row.path)
    return _document((_named(row, model) for row in rows), f"RESTful API for: {model}")


def management_document(model: str) -> dict[str, Any]:
    """How one model is managed."""
    rows = (row for row in _MANAGEMENT if "{model_name}" in row.path)
    return _document(rows, f"RESTful Management API for: {model}")


def _named(row: _Row, model: str) -> _Row:
    return msgspec.structs.replace(row, path=row.path.replace("{model_name}", model))


def _document(rows: Iterable[_Row], title: str) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method] = _operation(row)
    return {
        "openapi": "3.0.1",
        "info": {
            "title": title,
            "description": "TorchServe's REST APIs, served by Argosy; /openapi.json has everything.",
            "version": argosy.__version__,
        },
        "paths": paths,
    }


def _operation(row: _Row) -> dict[str, Any]:
    in_path = [name for name in _PATH_PARTS if f"{{{name}}}" in row.path]
    operation: dict[str, Any] = {
        "description": row.about,
        "operationId": row.operation,
        "parameters": [
            *(_parameter("path", name, "string", _PATH_PARTS[name], required=True) for name in in_path),
            *(
                _parameter("query", name, _QUERY[name].kind, _QUERY[name].about, required=name == "url")
                for name in row.query
            ),
        ],
    }
    if row.takes_body:
        operation["requestBody"] = {
            "description": "Input data: as the model's handler defines it.",
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
            "required": True,
        }
    operation["responses"] = {str(status): _response(status) for status in row.statuses}
    return operation


def _parameter(place: str, name: str, kind: str, about: str, *, required: bool) -> dict[str, Any]:
    return {"in": place, "name": name, "description": about, "required": required, "schema": {"type": kind}}


def _response(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {"description": _WORDS[status]}
    if status >= 400:
        response["content"] = {"application/json": {"schema": _ERROR}}
    return response
