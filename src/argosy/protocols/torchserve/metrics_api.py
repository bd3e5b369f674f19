"""`GET /metrics[?name[]=a&name[]=b]`: Prometheus' text format, the `ts_*` names and every other of this server."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.observe.metrics import Metrics
from argosy.observe.torchserve_metrics import only
from argosy.protocols.torchserve.operations import HEALTH, METRICS_QUERY, operation
from argosy.web.operation import describes

# What the text is, whichever version the library that writes it names; TorchServe's clients expect this one.
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsApi:
    """The route. is_enabled: off, it answers 404, as TorchServe does."""

    def __init__(self, metrics: Metrics, *, is_enabled: bool) -> None:
        self._metrics = metrics
        self._is_enabled = is_enabled

    def routes(self) -> list[Route]:
        """The one path."""
        return [Route("/metrics", self.scrape, methods=["GET", "POST"])]

    @describes(operation("Metrics in Prometheus' text format", HEALTH, 404, query=METRICS_QUERY, is_text=True))
    async def scrape(self, request: Request) -> Response:
        """All metrics, or those that are named. Raises: HTTPException if they are off."""
        if not self._is_enabled:
            raise HTTPException(404)
        text = self._metrics.expose()
        if names := request.query_params.getlist("name[]"):
            text = only(text, names)
        return Response(text, headers={"content-type": _CONTENT_TYPE})
