"""The wiring of a replica: registry → protocols → routes → edge. The only place that knows every room's front."""

from __future__ import annotations

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
from argosy.server.api_keys import ApiKeys, plain_keys, read_keys
from argosy.server.chat_page import Page
from argosy.server.edge import Edge, EdgeSettings
from argosy.server.operations import Operations
from argosy.server.replica import Replica


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
        door=door_for(spec, load_keys(spec)),
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


def load_keys(spec: ServeSpec) -> ApiKeys:
    """The keys of the file and those given in the clear. Raises: SpecError."""
    stored = list(read_keys(spec.api_keys_file).keys) if spec.api_keys_file else []
    if spec.api_keys_file and not stored:
        raise SpecError(
            f"API key file {spec.api_keys_file} holds no key, which would let everyone in: "
            f"run `argosy keys create NAME --file {spec.api_keys_file}`"
        )
    return ApiKeys([*stored, *plain_keys(spec.api_keys)])
