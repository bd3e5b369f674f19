"""The wiring of the control plane's API: plane → routes → edge, and the console beside them."""

from __future__ import annotations

from importlib import resources

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.api.fleet_routes import FleetRoutes
from argosy.api.loop_metrics import show_world
from argosy.api.plane import ControlPlane
from argosy.api.scrape import MergedMetrics
from argosy.api.service_routes import ServiceRoutes
from argosy.core.control_spec import ControlSpec
from argosy.core.errors import SpecError
from argosy.core.principal import Scope
from argosy.observe.metrics import CONTENT_TYPE, Metrics
from argosy.observe.tracing import open_tracing
from argosy.web.access import door_for, load_keys
from argosy.web.edge import Edge, EdgeSettings
from argosy.web.lifecycle import Lifecycle
from argosy.web.operation import Operation, describes
from argosy.web.operations import Operations
from argosy.web.pages import Page
from argosy.web.paths import Paths

_PATHS = Paths(default_scope=Scope.ADMIN, pages=frozenset({"/"}), page_prefixes=("/assets/",))
_ABOUT = "Argosy's control plane: declared services, their replicas, their traffic."


class App(msgspec.Struct, frozen=True, kw_only=True):
    """The API's ASGI application, and the route table it answers."""

    edge: Edge
    routes: list[Route]


class _Metrics:
    """GET /metrics: the control plane, its gateways and its replicas in one scrape."""

    def __init__(self, merged: MergedMetrics) -> None:
        self._merged = merged

    @describes(Operation(summary="Metrics of everything, in Prometheus' text format", tag="operations", is_text=True))
    async def show(self, request: Request) -> Response:
        """Every metric."""
        return Response(await self._merged.expose(), headers={"content-type": CONTENT_TYPE})


def build_api(
    spec: ControlSpec, plane: ControlPlane, metrics: Metrics, lifecycle: Lifecycle, *, replica_key: str | None = None
) -> App:
    """Everything a control plane answers. replica_key: what its replicas ask for. Raises: SpecError without any key."""
    if not spec.has_keys:
        raise SpecError("the control plane's API starts programs, so it needs a key: pass --api-keys-file")
    show_world(metrics, plane.loop.world, plane.loop.clock)
    merged = MergedMetrics(metrics, plane.loop.world, plane.loop.clock, replica_key=replica_key)
    served = [
        *ServiceRoutes(plane).routes(),
        *FleetRoutes(plane).routes(),
        Route("/metrics", _Metrics(merged).show),
    ]
    operations = Operations(lifecycle, metrics, _ABOUT).routes(served)
    page = Page(resources.files("argosy.api") / "console").routes()
    routes = [*served, *page, *operations]
    settings = EdgeSettings(
        door=door_for(spec, load_keys(spec, metrics), _PATHS),
        max_body_bytes=spec.limits.max_body_bytes,
        access_log=spec.access_log,
        tracing=open_tracing(spec.otlp_endpoint, "control"),
    )
    return App(edge=Edge(routes, lifecycle, metrics, settings), routes=routes)
