"""What concerns all services at once, and what gateways say: replicas, events, top, routes, reports."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.api.answers import Done, json_response
from argosy.api.plane import ControlPlane
from argosy.api.queries import SERVICE, WATCH, flag, name_in, query_of
from argosy.api.service_routes import body_of
from argosy.core.control_api import EventChange, EventList, ReplicaList
from argosy.core.load_report import GATEWAY_REPORT_PATH, GatewayReport
from argosy.core.model import require_name
from argosy.core.routing import RouteTable
from argosy.core.service_views import Top
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes


def _described(summary: str, tag: str, errors: tuple[int, ...], **fields: Any) -> Operation:
    return Operation(summary=summary, tag=tag, error_body=ErrorBody, errors=errors, **fields)


class FleetRoutes:
    """The endpoints over one control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/replicas", self.replicas, methods=["GET"]),
            Route("/v1/events", self.events, methods=["GET"]),
            Route("/v1/top", self.top, methods=["GET"]),
            Route("/v1/routes", self.route_table, methods=["GET"]),
            Route(GATEWAY_REPORT_PATH, self.report, methods=["POST"]),
        ]

    @describes(_described("Replicas and their load", "fleet", (400, 404, 503), response=ReplicaList, query=(SERVICE,)))
    async def replicas(self, request: Request) -> Response:
        """Of one service, or of all."""
        service = name_in(query_of(request, [SERVICE]), SERVICE)
        return json_response(ReplicaList(items=await self._plane.replicas(service)))

    @describes(
        _described(
            "What has happened, the latest last",
            "fleet",
            (400, 429, 503),
            response=EventList,
            stream=EventChange,
            query=(SERVICE, WATCH),
        )
    )
    async def events(self, request: Request) -> Response:
        """Of one service, or of all; or a watch."""
        query = query_of(request, [SERVICE, WATCH])
        service = name_in(query, SERVICE)
        if flag(query, WATCH):
            return self._plane.streams.events(self._plane.watch_events(service))
        return json_response(EventList(items=await self._plane.events(service)))

    @describes(_described("Load and rates over the last seconds", "fleet", (400, 503), response=Top))
    async def top(self, request: Request) -> Response:
        """What `argosy top` shows."""
        query_of(request, [])
        return json_response(await self._plane.top())

    @describes(
        _described(
            "What gateways route", "gateways", (400, 429, 503), response=RouteTable, stream=RouteTable, query=(WATCH,)
        )
    )
    async def route_table(self, request: Request) -> Response:
        """The table now, or a watch of it."""
        if flag(query_of(request, [WATCH]), WATCH):
            return self._plane.streams.events(self._plane.watch_routes())
        return json_response(self._plane.routes())

    @describes(
        _described(
            "A gateway's report",
            "gateways",
            (400, 413, 422, 429, 503),
            request=GatewayReport,
            response=Done,
            example={"epoch": "e1"},
        )
    )
    async def report(self, request: Request) -> Response:
        """Taken in at once; nothing is stored."""
        query_of(request, [])
        gateway = require_name(request.path_params["name"], "gateway name")
        self._plane.record_report(gateway, await body_of(request, GatewayReport))
        return json_response(Done())
