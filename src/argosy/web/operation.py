"""What one route takes and gives, as types: attached to its endpoint, read by whoever writes /openapi.json.

    @describes(Operation(summary="…", request=ChatCompletionRequest, response=ChatCompletion, errors=(400, 404)))
    async def create(self, request: Request) -> Response: ...

The description lives beside the code it describes, and a test calls every documented route with its own example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.routing import Route

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])

_ATTRIBUTE = "operation"


class QueryParameter(msgspec.Struct, frozen=True, kw_only=True):
    """What may stand behind the `?` of a path. kind: str, int or bool (`true` or `false`)."""

    name: str
    summary: str
    kind: type = str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one route.

    request, response: msgspec types of the JSON bodies; None = no body. stream: the type of one server-sent event
    when the request asks for a stream. is_text: the answer is plain text. query: what may stand behind the `?`.
    errors: statuses that may come back with an `error_body`. example: a request body that works, or None.
    tag: the heading it stands under.
    """

    summary: str
    tag: str
    request: type | None = None
    response: type | None = None
    stream: type | None = None
    is_text: bool = False
    query: tuple[QueryParameter, ...] = ()
    error_body: type | None = None
    errors: tuple[int, ...] = ()
    example: dict[str, Any] | None = None


def describes(operation: Operation) -> Callable[[_Endpoint], _Endpoint]:
    """Attach `operation` to an endpoint function or method."""

    def attach(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _ATTRIBUTE, operation)
        return endpoint

    return attach


def operation_of(route: Route) -> Operation | None:
    """The description attached to a route's endpoint, if it has one."""
    operation = getattr(route.endpoint, _ATTRIBUTE, None)
    return operation if isinstance(operation, Operation) else None
