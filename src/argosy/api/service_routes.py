"""/v1/inferenceservices: what is declared, and everything that hangs on one service."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.api.answers import Done, json_response
from argosy.api.plane import ControlPlane
from argosy.api.queries import FOLLOW, REPLICA, REVISION, WATCH, flag, name_in, query_of
from argosy.core.control_api import RevisionList, ServiceChange, ServiceList
from argosy.core.errors import InvalidRequest, SpecError
from argosy.core.inference_service import InferenceService
from argosy.core.model import require_name
from argosy.core.service_views import Plan, Why
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes

T = TypeVar("T")

_TAG = "services"
_EXAMPLE = {"metadata": {"name": "chat"}, "spec": {"template": {"model": "smollm2"}}}
_FAILURES = (400, 503)
_ONE_FAILURES = (400, 404, 503)
_PUT_FAILURES = (400, 409, 413, 422, 503)


def described(summary: str, errors: tuple[int, ...], **fields: Any) -> Operation:
    """An operation of a service."""
    return Operation(summary=summary, tag=_TAG, error_body=ErrorBody, errors=errors, **fields)


class ServiceRoutes:
    """The endpoints over one control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def routes(self) -> list[Route]:
        """All of them."""
        every, one = "/v1/inferenceservices", "/v1/inferenceservices/{name}"
        return [
            Route(every, self.list, methods=["GET"]),
            Route(one, self.get, methods=["GET"]),
            Route(one, self.put, methods=["PUT"]),
            Route(one, self.delete, methods=["DELETE"]),
            Route(f"{one}/plan", self.plan, methods=["POST"]),
            Route(f"{one}/revisions", self.revisions, methods=["GET"]),
            Route(f"{one}/why", self.why, methods=["GET"]),
            Route(f"{one}/logs", self.logs, methods=["GET"]),
        ]

    @describes(described("All services", (*_FAILURES, 429), response=ServiceList, stream=ServiceChange, query=(WATCH,)))
    async def list(self, request: Request) -> Response:
        """All, or a watch of all."""
        if flag(query_of(request, [WATCH]), WATCH):
            return self._plane.streams.events(self._plane.watch_services())
        return json_response(ServiceList(items=await self._plane.services()))

    @describes(described("One service", _ONE_FAILURES, response=InferenceService))
    async def get(self, request: Request) -> Response:
        """What is declared, and how it is."""
        query_of(request, [])
        return json_response(await self._plane.service(service_name(request)))

    @describes(
        described(
            "Declare a service", _PUT_FAILURES, request=InferenceService, response=InferenceService, example=_EXAMPLE
        )
    )
    async def put(self, request: Request) -> Response:
        """Made, or changed; its status is ours to write and is ignored."""
        query_of(request, [])
        return json_response(await self._plane.apply(await _declared(request)))

    @describes(
        described(
            "What a declaration would do", _PUT_FAILURES, request=InferenceService, response=Plan, example=_EXAMPLE
        )
    )
    async def plan(self, request: Request) -> Response:
        """A dry run: nothing is changed."""
        query_of(request, [])
        return json_response(await self._plane.plan(await _declared(request)))

    @describes(described("Delete a service", _ONE_FAILURES, response=Done))
    async def delete(self, request: Request) -> Response:
        """Its replicas drain and end."""
        query_of(request, [])
        await self._plane.delete(service_name(request))
        return json_response(Done())

    @describes(described("A service's revisions, the oldest first", _ONE_FAILURES, response=RevisionList))
    async def revisions(self, request: Request) -> Response:
        """Immutable, numbered."""
        query_of(request, [])
        return json_response(RevisionList(items=await self._plane.revisions(service_name(request))))

    @describes(described("Why a service is as it is", _ONE_FAILURES, response=Why))
    async def why(self, request: Request) -> Response:
        """In sentences."""
        query_of(request, [])
        return json_response(await self._plane.why(service_name(request)))

    @describes(
        described(
            "Log lines of a service's replicas", (*_ONE_FAILURES, 429), is_text=True, query=(REPLICA, REVISION, FOLLOW)
        )
    )
    async def logs(self, request: Request) -> Response:
        """Text, line by line; with several replicas each line begins with its replica's name."""
        query = query_of(request, [REPLICA, REVISION, FOLLOW])
        lines = await self._plane.logs(
            service_name(request),
            replica=name_in(query, REPLICA),
            revision=name_in(query, REVISION),
            follow=flag(query, FOLLOW),
        )
        return self._plane.streams.lines(lines)


def service_name(request: Request) -> str:
    """The name in the path. Raises: InvalidRequest (D-06)."""
    return require_name(request.path_params["name"], "service name")


async def _declared(request: Request) -> InferenceService:
    """The service in the body. Raises: InvalidRequest, SpecError."""
    name = service_name(request)
    declared = await body_of(request, InferenceService)
    if declared.metadata.name != name:
        raise SpecError(
            f"the path names service {name!r} and the body {declared.metadata.name[:100]!r} - at `$.metadata.name`: "
            "write the same name in both"
        )
    return declared


async def body_of(request: Request, kind: type[T]) -> T:
    """The body as a value of a type. Raises: InvalidRequest if it is no JSON, SpecError if it does not fit."""
    content = await request.body()
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as exc:
        raise SpecError(str(exc)) from exc
    except (msgspec.DecodeError, RecursionError) as exc:
        raise InvalidRequest(f"the body is no JSON ({exc}): send one document") from exc
