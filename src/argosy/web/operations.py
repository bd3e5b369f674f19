"""The routes for whoever runs the server: probes, version, metrics, load, OpenAPI.

/livez  200 unless the process must be replaced (restart it when this fails).
/readyz 200 if new requests are taken: not while loading, draining or dead (take it out of rotation when this fails).
/health as vLLM's: 200 and an empty body if it can serve, else 503. /ping is the same for SageMaker.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import argosy
from argosy.observe.metrics import CONTENT_TYPE, Metrics
from argosy.web.lifecycle import Lifecycle, Phase
from argosy.web.openapi import openapi_document
from argosy.web.operation import Operation, describes

_TAG = "operations"


class PhaseBody(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe says. phase: starting, ready, draining or dead. reason: empty when ready.

    start_seconds: what the start has taken so far, by its parts.
    """

    status: str
    phase: str
    reason: str
    start_seconds: dict[str, float] = {}


class VersionBody(msgspec.Struct, frozen=True, kw_only=True):
    """The running version."""

    version: str


class LoadBody(msgspec.Struct, frozen=True, kw_only=True):
    """HTTP requests being answered now."""

    server_load: int


class Operations:
    """The endpoints, over the life of one server. about: what it is, for the OpenAPI document."""

    def __init__(self, lifecycle: Lifecycle, metrics: Metrics, about: str) -> None:
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._about = about
        self._routes: list[Route] = []

    def routes(self, served: list[Route]) -> list[Route]:
        """Our routes, but for paths that `served` has already; all of them go into the OpenAPI document."""
        own = [
            Route("/livez", self.livez),
            Route("/readyz", self.readyz),
            Route("/health", self.health),
            Route("/ping", self.health, methods=["GET", "POST"]),
            Route("/version", self.version),
            Route("/load", self.load),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
        ]
        taken = {route.path for route in served}
        own = [route for route in own if route.path not in taken]
        self._routes = [*served, *own]
        return own

    @describes(Operation(summary="Whether the process works at all", tag=_TAG, response=PhaseBody, errors=(503,)))
    async def livez(self, request: Request) -> Response:
        """200 unless dead."""
        return self._probe(self._lifecycle.phase is not Phase.DEAD)

    @describes(Operation(summary="Whether new requests are taken", tag=_TAG, response=PhaseBody, errors=(503,)))
    async def readyz(self, request: Request) -> Response:
        """200 only when ready."""
        return self._probe(self._lifecycle.is_ready)

    @describes(Operation(summary="Health, as vLLM answers it", tag=_TAG, errors=(503,)))
    async def health(self, request: Request) -> Response:
        """An empty body; the status says it."""
        can_serve = self._lifecycle.phase in (Phase.READY, Phase.DRAINING)
        return Response(status_code=200 if can_serve else 503)

    @describes(Operation(summary="The running version", tag=_TAG, response=VersionBody))
    async def version(self, request: Request) -> Response:
        """Argosy's version."""
        return _json(VersionBody(version=argosy.__version__))

    @describes(Operation(summary="Requests being answered now", tag=_TAG, response=LoadBody))
    async def load(self, request: Request) -> Response:
        """As vLLM's /load; this request does not count."""
        return _json(LoadBody(server_load=self._lifecycle.in_flight - 1))

    @describes(Operation(summary="Metrics in Prometheus' text format", tag=_TAG))
    async def metrics(self, request: Request) -> Response:
        """Every metric."""
        return Response(self._metrics.expose(), headers={"content-type": CONTENT_TYPE})

    @describes(Operation(summary="This document", tag=_TAG))
    async def openapi(self, request: Request) -> Response:
        """OpenAPI 3.1 of every route."""
        return _json(openapi_document(self._routes, self._about))

    def _probe(self, is_good: bool) -> Response:
        body = PhaseBody(
            status="ok" if is_good else "unavailable",
            phase=self._lifecycle.phase.value,
            reason=self._lifecycle.reason,
            start_seconds={name: round(seconds, 4) for name, seconds in self._lifecycle.start_seconds().items()},
        )
        return _json(body, 200 if is_good else 503)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
