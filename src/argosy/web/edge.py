"""The first and last thing a request meets: one ASGI application around the routes.

In one pass: request id and trace, who may come in (`access.py`), whether the server takes requests, the size of the
body, errors into responses, security headers, metrics, access log. Instead of a stack of middlewares there is one
wrapper around `send` (`exchange.py`), because each layer would cost every token of every stream a hop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from argosy.core.errors import ArgosyError, PayloadTooLarge, Unauthorized
from argosy.observe.metrics import Counter, Histogram, Metrics
from argosy.observe.tracing import Tracing
from argosy.web import access
from argosy.web.errors import NotReady, error_response
from argosy.web.exchange import STRICT_POLICY, Exchange, Headers, Terms
from argosy.web.known_paths import KnownPaths
from argosy.web.lifecycle import Lifecycle

logger = logging.getLogger("argosy.access")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The rules at the edge. fatal: errors after which the process cannot serve any more. tracing: None = off.

    render: an error as the response its protocol has for it. headers: what every response carries that does not set
    them itself. closes_on_error: no connection outlives an error.
    """

    door: access.Door
    max_body_bytes: int
    access_log: bool
    fatal: tuple[type[ArgosyError], ...] = ()
    tracing: Tracing | None = None
    render: Callable[[Exception, Request], Response] = error_response
    headers: Headers = ()
    closes_on_error: bool = False


class Edge:
    """The ASGI application of a server. Cancels: the request's own cancellation passes through, counted."""

    def __init__(self, routes: Sequence[Route], lifecycle: Lifecycle, metrics: Metrics, settings: EdgeSettings) -> None:
        for route in routes:
            route.app = plain_app(route.endpoint)
        self._router = Router(routes, redirect_slashes=False)
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._settings = settings
        self._terms = Terms(
            max_body_bytes=settings.max_body_bytes,
            headers=(*settings.headers, STRICT_POLICY),
            closes_on_error=settings.closes_on_error,
        )
        self._methods: dict[str, set[str]] = {}
        for route in routes:
            self._methods.setdefault(route.path, set()).update(route.methods or ())
        self._in_flight = metrics.gauge("argosy_http_requests_in_flight")
        self._known = KnownPaths()
        self._cells: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever it is."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, self._terms)
        is_probe = self._settings.door.paths.is_probe(scope["path"])
        if not is_probe:
            self._lifecycle.enter()
            self._in_flight.add(1)
        try:
            app = self._admit(exchange, is_probe=is_probe)
            await app(scope, exchange.receive_body, exchange.send)
        except Exception as error:  # boundary: the HTTP edge, every error becomes a response
            if isinstance(error, self._settings.fatal):
                self._lifecycle.die(error.message)
            if exchange.status:
                raise
            await self._refuse(exchange, error)
        finally:
            if not is_probe:
                self._in_flight.add(-1)
                self._lifecycle.leave()
            self._account(exchange)

    def _admit(self, exchange: Exchange, *, is_probe: bool) -> ASGIApp:
        """Check who comes and what they bring; what answers them."""
        scope, settings = exchange.scope, self._settings
        head: access.Head = dict(scope["headers"])
        exchange.identify(head)
        if len(head) != len(scope["headers"]):
            access.check_single(scope["headers"])
        access.check_host(head, settings.door, scope["http_version"])
        exchange.granted_origin = access.check_origin(head, settings.door)
        if exchange.granted_origin and scope["method"] == "OPTIONS":
            return preflight()
        principal = access.authenticate(scope["path"], head, settings.door)
        if settings.tracing is not None and not is_probe:
            exchange.trace(settings.tracing, head)
        if not is_probe and not self._lifecycle.takes_requests and settings.door.paths.needs_ready(scope["path"]):
            exchange.must_close = True
            raise NotReady(self._lifecycle.reason, phase=self._lifecycle.phase.value)
        must_be_json = scope["path"].startswith(settings.door.paths.json_prefixes)
        if not must_be_json:
            access.check_site(head, exchange.granted_origin)
        exchange.limit_body(access.check_content(scope["method"], head, must_be_json=must_be_json))
        state = scope.setdefault("state", {})
        state["request_id"] = exchange.request_id
        state["principal"] = access.billed_to(head, principal, settings.door)
        state["caller"] = principal
        scope["app"] = self
        return self._known.app_for(scope) or self._look_up

    async def _look_up(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the route of a path that was not asked for lately, and keep in mind which it was."""
        try:
            await self._router(scope, receive, send)
        finally:
            self._known.remember(scope)

    async def _refuse(self, exchange: Exchange, error: Exception) -> None:
        request = Request(exchange.scope)
        response = self._settings.render(error, request)
        if isinstance(error, Unauthorized) and self._settings.door.paths.is_page(exchange.scope["path"]):
            response.headers["www-authenticate"] = 'Basic realm="argosy", charset="UTF-8"'
        if response.status_code == 405 and (route := exchange.scope.get("route")) is not None:
            response.headers["allow"] = ", ".join(sorted(self._methods[route.path]))  # of every route at that path
        if isinstance(error, PayloadTooLarge):
            exchange.must_close = True
            await response(exchange.scope, exchange.receive, exchange.send_and_linger)
            return
        if not isinstance(error, ArgosyError | HTTPException):
            exchange.must_close = True
        await response(exchange.scope, exchange.receive, exchange.send)

    def _account(self, exchange: Exchange) -> None:
        scope = exchange.scope
        route = scope.get("route")
        handler = getattr(route, "path", None) or (scope["path"] if scope["path"] in self._methods else "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        status = exchange.status or 499
        seconds = time.monotonic() - exchange.started
        cells = self._cells.get((handler, method, status))
        if cells is None:
            cells = self._cells[handler, method, status] = (
                self._metrics.counter("http_requests", handler, method, str(status)),
                self._metrics.histogram("http_request_duration_seconds", handler, method),
            )
        count, duration = cells
        count.add()
        duration.observe(seconds)
        exchange.span.end(method, handler, status)
        if self._settings.access_log:
            logger.info(
                "request",
                extra={
                    "method": method,
                    "path": scope["path"],
                    "status": exchange.status or 499,
                    "duration_seconds": round(seconds, 6),
                    "request_id": exchange.request_id,
                    "client": (scope.get("client") or ("",))[0],
                },
            )


def preflight() -> Response:
    """The answer to a browser that asks first, from an allowed origin."""
    return Response(
        status_code=204,
        headers={
            "access-control-allow-methods": "GET, POST, PUT, DELETE, OPTIONS",
            "access-control-allow-headers": "authorization, content-type, x-request-id, traceparent",
            "access-control-max-age": "600",
        },
    )


def plain_app(endpoint: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """An endpoint as an ASGI application. Starlette's own wraps `send` to handle errors, which the edge does here."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return app
