"""What asks whether the server, or a model, can answer: `/ping`, and the Open Inference Protocol's health routes.

Live, ready and model-ready are three things (docs/operations): `/livez` restarts a process, `/readyz` takes it out of
rotation, `/ping` is TorchServe's word for ready: unhealthy while the server starts or drains, and when a model's
default version has had fewer workers than it shall have for longer than its retry time.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import argosy
from argosy.protocols.torchserve.answers import StatusBody, json_answer, status_answer
from argosy.protocols.torchserve.description import can_answer
from argosy.protocols.torchserve.errors import Refusal
from argosy.protocols.torchserve.operations import HEALTH, operation
from argosy.serving.predictions.administration import Administration
from argosy.web.lifecycle import Lifecycle
from argosy.web.operation import describes

HEALTH_PATHS = frozenset({"/v2/health/live", "/v2/health/ready"})


class Probes:
    """The routes of health."""

    def __init__(self, administration: Administration, lifecycle: Lifecycle) -> None:
        self._administration = administration
        self._lifecycle = lifecycle

    def routes(self, *, open_inference: bool) -> list[Route]:
        """`/ping`, and the Open Inference Protocol's routes where they are wanted."""
        routes = [Route("/ping", self.ping, methods=["GET", "POST"])]
        if open_inference:
            routes += [
                Route("/v2", self.server, methods=["GET"]),
                Route("/v2/health/live", self.live, methods=["GET"]),
                Route("/v2/health/ready", self.ready, methods=["GET"]),
                Route("/v2/models/{model}", self.model, methods=["GET"]),
                Route("/v2/models/{model}/ready", self.model_ready, methods=["GET"]),
                Route("/v2/models/{model}/versions/{version}", self.versions, methods=["GET"]),
                Route("/v2/models/{model}/versions/{version}/{verb}", self.versions, methods=["GET", "POST"]),
            ]
        return routes

    @describes(operation("Whether the server is healthy", HEALTH, response=StatusBody))
    async def ping(self, request: Request) -> Response:
        """200 `Healthy` or 500 `Unhealthy`; the status decides, as in TorchServe 0.12."""
        return status_answer("Healthy") if self._is_healthy() else status_answer("Unhealthy", 500)

    @describes(operation("Who this is", HEALTH, response=dict))
    async def server(self, request: Request) -> Response:
        """Who this is."""
        return json_answer({"name": "argosy", "version": argosy.__version__, "extensions": []})

    @describes(operation("Whether the server lives", HEALTH, response=dict))
    async def live(self, request: Request) -> Response:
        """Answering is being alive."""
        return json_answer({"live": True})

    @describes(operation("Whether the server is ready", HEALTH, response=dict))
    async def ready(self, request: Request) -> Response:
        """As `/ping`."""
        return json_answer({"ready": self._is_healthy()})

    @describes(operation("A model and its versions", HEALTH, 404, response=dict))
    async def model(self, request: Request) -> Response:
        """A model's name and versions. Raises: ModelNotFound."""
        name = request.path_params["model"]
        versions = [status.version for status in self._administration.describe(name, "all")]
        return json_answer({"name": name, "versions": versions, "platform": "", "inputs": [], "outputs": []})

    @describes(operation("Whether a model is ready", HEALTH, 404, response=dict))
    async def model_ready(self, request: Request) -> Response:
        """Whether a model answers. Raises: ModelNotFound."""
        name = request.path_params["model"]
        (status,) = self._administration.describe(name, None)
        return json_answer({"name": name, "ready": can_answer(status)})

    @describes(operation("Not served", HEALTH, 501))
    async def versions(self, request: Request) -> Response:
        """TorchServe has these paths and nothing behind them. Raises: Refusal."""
        raise Refusal(
            501,
            "NotImplementedException",
            "Model versions are not part of the Open Inference Protocol here: call /predictions/{model}/{version}",
        )

    def _is_healthy(self) -> bool:
        return self._lifecycle.is_ready and self._administration.is_healthy
