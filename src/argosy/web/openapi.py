"""/openapi.json, made from the route table and the types on it: nothing is written twice, so nothing can differ."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from starlette.routing import Route

import argosy
from argosy.web.operation import Operation, operation_of
from argosy.web.paths import PROBES

_REF_TEMPLATE = "#/components/schemas/{name}"
_REASONS = {
    400: "The request is wrong.",
    401: "No API key, or an unknown one.",
    403: "The key lacks the scope, or the page's origin is foreign.",
    404: "No such model, service or route.",
    405: "Another method.",
    408: "The request did not arrive in time.",
    409: "It exists already, or changed since it was read.",
    413: "The body is too large.",
    422: "The document is wrong; the message names the field.",
    429: "The queue is full: come back after Retry-After seconds.",
    500: "The server failed on this request.",
    503: "Loading, draining or dead, or what it needs has failed.",
    504: "The deadline passed.",
}


def openapi_document(routes: Iterable[Route], description: str) -> dict[str, Any]:
    """OpenAPI 3.1 of the routes that carry an `Operation`. description: what the server is."""
    described = [(route, operation) for route in routes if (operation := operation_of(route))]
    types = _types(operation for _, operation in described)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF_TEMPLATE, schema_hook=_schema_of)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route, operation in described:
        path = _CONVERTER.sub("}", route.path)
        for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
            paths.setdefault(path, {})[method.lower()] = _operation(path, method, operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Argosy",
            "version": argosy.__version__,
            "description": description,
            "license": {"name": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"apiKey": []}, {}],
    }


def _schema_of(kind: type) -> dict[str, Any]:
    """What msgspec does not know. Raises: NotImplementedError, as it wants it."""
    if kind is Path:
        return {"type": "string"}
    raise NotImplementedError(kind)


def _types(operations: Iterable[Operation]) -> list[type]:
    found: dict[type, None] = {}
    for operation in operations:
        for each in (operation.request, operation.response, operation.stream, operation.error_body):
            if each is not None:
                found[each] = None
    return [*found]


def _operation(path: str, method: str, operation: Operation, by_type: dict[type, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "tags": [operation.tag],
        "operationId": f"{method.lower()}{path.translate(_ID)}",
        "responses": _responses(path, operation, by_type),
    }
    if parameters := _parameters(path, operation):
        described["parameters"] = parameters
    if operation.request is not None and method != "GET":
        content: dict[str, Any] = {"schema": by_type[operation.request]}
        if operation.example is not None:
            content["example"] = operation.example
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
    if path in PROBES:
        described["security"] = []
    return described


def _parameters(path: str, operation: Operation) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    for each in operation.query:
        (schema,), _ = msgspec.json.schema_components([each.kind])
        found.append({"name": each.name, "in": "query", "description": each.summary, "schema": schema})
    return found


_ID = str.maketrans({"/": "_", "{": "", "}": "", "-": "_", ".": "_"})
_CONVERTER = re.compile(r":\w+}")  # Starlette's `{model:path}` is `{model}` to a client.


def _event(data: dict[str, Any]) -> dict[str, Any]:
    """One server-sent event: JSON of this schema, or the mark at the end.

    Source: OpenAPI 3.2, "Sequential Media Types".
    """
    content = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"anyOf": [{"const": "[DONE]"}, content]}},
    }


def _responses(path: str, operation: Operation, by_type: dict[type, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.response is not None:
        content["application/json"] = {"schema": by_type[operation.response]}
    if operation.stream is not None:
        content["text/event-stream"] = {"schema": _event(by_type[operation.stream])}
    if operation.is_text:
        content["text/plain"] = {"schema": {"type": "string"}}
    responses: dict[str, Any] = {"200": {"description": "Done."}}
    if content:
        responses["200"]["content"] = content
    always = () if path in PROBES else (401, 403)
    for status in sorted({*operation.errors, *always}):
        error: dict[str, Any] = {"description": _REASONS.get(status, "An error.")}
        if operation.error_body is not None:
            error["content"] = {"application/json": {"schema": by_type[operation.error_body]}}
        responses[str(status)] = error
    return responses
