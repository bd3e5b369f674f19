"""The wiring of a replica: registry → protocols → routes → edge. The only place that knows every room's front."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from argosy.core.errors import SpecError
from argosy.core.plugins import resolve
from argosy.core.serve_spec import ServeSpec
from argosy.observe.metrics import Metrics
from argosy.protocols import PROTOCOLS
from argosy.protocols.openai.errors import error_response
from argosy.server.access import door_for
from argosy.server.api_keys import ApiKeys, WatchedKeys, plain_keys, read_keys
from argosy.server.chat_page import Page
from argosy.server.edge import Edge, EdgeSettings
from argosy.server.operations import Operations
from argosy.server.replica import Replica

logger = logging.getLogger(__name__)


class App(msgspec.Struct, frozen=True, kw_only=True):
    """A replica's ASGI application, and the route table it answers."""

    edge: Edge
    routes: list[Route]


def build_app(spec: ServeSpec, replica: Replica, metrics: Metrics) -> App:
    """Everything one replica answers. Models may be added to its registry later. Raises: SpecError."""
    served: list[Route] = []
    for name in PROTOCOLS:
        served += resolve(PROTOCOLS, name, "protocol")(replica.registry)
    routes = [*served, *Page().routes(), *Operations(replica, metrics).routes(served)]
    for route in routes:
        route.app = plain_app(route.endpoint)
    settings = EdgeSettings(
        door=door_for(spec, load_keys(spec, metrics)),
        max_body_bytes=spec.limits.max_body_bytes,
        access_log=spec.access_log,
        error_response=error_response,
    )
    router = Router(routes, redirect_slashes=False)
    return App(edge=Edge(router, replica, metrics, settings), routes=routes)


def plain_app(endpoint: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """An endpoint as an ASGI application. Starlette's own wraps `send` to handle errors, which the edge does here."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


def load_keys(spec: ServeSpec, metrics: Metrics) -> ApiKeys:
    """The keys of the file, watched, and those given in the clear. Raises: SpecError."""
    path = spec.api_keys_file
    if path is None:
        return ApiKeys(plain_keys(spec.api_keys))
    if not read_keys(path).keys:
        raise SpecError(
            f"API key file {path} holds no key, so nobody could get in: run `argosy keys create NAME --file {path}`"
        )
    failures = metrics.counter("argosy_api_keys_reload_failures")

    def report(error: SpecError) -> None:
        failures.add()
        logger.warning("API key file changed and is unusable, the keys before stay", extra={"error": error.message})

    return WatchedKeys(path, plain_keys(spec.api_keys), report)
