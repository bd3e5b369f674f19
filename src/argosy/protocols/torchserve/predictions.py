"""`/predictions`, `/explanations` and their older and newer names: all of them one prediction, named by the path.

    POST /predictions/{model}[/{version}[/{rest}]]      rest reaches the handler as the header `url_path`
    POST /explanations/{model}[/{version}]              the same, with the header `explain: True`
    POST /v1/models/{model}:predict, :explain           KServe v1; the handler understands {"instances": …}
    POST /v2/models/{model}/infer, /explain             KServe v2
    POST /{model}[/{version}]/predict                   legacy; query parameters are inputs, too

This is the hot path. What a request costs here: one dict of its headers, one or two small structs, two messages.
"""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.core.prediction import PredictRequest
from argosy.protocols.torchserve.answers import json_answer
from argosy.protocols.torchserve.inputs import read_headers, read_parts
from argosy.protocols.torchserve.operations import PREDICT, operation
from argosy.protocols.torchserve.prediction_answer import PredictionAnswer
from argosy.protocols.torchserve.settings import WireSettings
from argosy.protocols.torchserve.swagger import model_document
from argosy.serving.predictions.administration import Administration
from argosy.web.operation import describes

METHODS = ["POST", "GET", "PUT", "PATCH", "DELETE"]
# What TorchServe tells every handler called under these paths; `url_path` is what follows the version.
_PREDICT = {"url_path": "", "explain": "False"}
_EXPLAIN = {"url_path": "", "explain": "True"}
_SEQUENCE_PREFIX = "ts-seq-"


class Predictions:
    """The routes, over the models of one server."""

    def __init__(self, administration: Administration, settings: WireSettings) -> None:
        self._administration = administration
        self._registry = administration.registry
        self._settings = settings
        self.is_strict = settings.is_strict

    def routes(self) -> list[Route]:
        """Every path but the catch-all ones of `legacy_routes`; the busiest first."""
        return [
            Route("/predictions/{model}", self.predict, methods=METHODS),
            Route("/predictions/{model}/{version}", self.predict, methods=METHODS),
            Route("/predictions/{model}", self.describe, methods=["OPTIONS"]),
            Route("/predictions/{model}/{version}/{rest:path}", self.predict, methods=METHODS),
            Route("/explanations/{model}", self.explain, methods=METHODS),
            Route("/explanations/{model}/{version}", self.explain, methods=METHODS),
            Route("/v1/models/{model}:predict", self.predict, methods=METHODS),
            Route("/v1/models/{model}:explain", self.explain, methods=METHODS),
            Route("/v2/models/{model}/infer", self.predict, methods=METHODS),
            Route("/v2/models/{model}/explain", self.explain, methods=METHODS),
        ]

    def legacy_routes(self) -> list[Route]:
        """Paths that begin with a model's name: they stand behind all others."""
        return [
            Route("/{model}/predict", self.predict_with_query, methods=METHODS),
            Route("/{model}/{version}/predict", self.predict_with_query, methods=METHODS),
        ]

    def startup_models(self) -> list[str]:
        """The models that were loaded at the start and are still there; with one, `/invocations` needs no name."""
        return sorted({version.name for version in self._registry.all() if version.is_loaded_at_startup})

    @describes(operation("Ask a model for a prediction", PREDICT, 400, 404, 413, 500, 503, 504, 507))
    async def predict(self, request: Request) -> Response:
        """Raises: InvalidRequest, ModelNotFound, NotFound; the answer raises what the prediction does."""
        return await self.answer(request, request.scope["path_params"], headers=_PREDICT)

    @describes(operation("Ask a model; query parameters are inputs", PREDICT, 400, 404, 413, 500, 503, 504, 507))
    async def predict_with_query(self, request: Request) -> Response:
        """As `predict`; the query's parameters are inputs."""
        return await self.answer(request, request.scope["path_params"], with_query=True)

    @describes(operation("Ask a model for an explanation", PREDICT, 400, 404, 413, 500, 503, 504, 507))
    async def explain(self, request: Request) -> Response:
        """As `predict`; the handler is told to explain."""
        return await self.answer(request, request.scope["path_params"], headers=_EXPLAIN)

    async def answer(
        self,
        request: Request,
        named: dict[str, Any],
        *,
        with_query: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """The prediction `named` (model, version, rest of the path) asks for. Raises: as `predict`."""
        asked = named.get("version")
        version = self._registry.get(named["model"], asked)
        own = read_headers(request.scope["headers"], with_credentials=self.is_strict)
        parts = await read_parts(request, own.get("content-type", ""), with_query=with_query)
        if headers:
            own.update(headers)
        if "rest" in named:
            own["url_path"] = named["rest"]
        predict = PredictRequest(
            request_id=request.scope["state"]["request_id"], parts=parts, headers=own, requested_version=asked or ""
        )
        told: dict[str, str] = {}
        if version.settings.sequences is not None:
            predict, told = self._in_sequence(predict)
        return PredictionAnswer(version.predict(predict), self._settings.max_response_bytes, told)

    @describes(operation("What a model says of itself", PREDICT, 404, 500, 503, response=dict))
    async def describe(self, request: Request) -> Response:
        """What the model's handler says of itself; else what our API offers for it. Raises: ModelNotFound."""
        name = request.path_params["model"]
        own = await self._administration.describe_handler(name, None)
        return json_answer(own if own is not None else model_document(name))

    def _in_sequence(self, request: PredictRequest) -> tuple[PredictRequest, dict[str, str]]:
        """The request with its place in a sequence; the one that starts a sequence is told its name."""
        names = self._settings.sequence_headers
        sequence_id = request.headers.get(names.sequence_id.lower(), "")
        starts = request.headers.get(names.start.lower(), "").lower() == "true"
        ends = request.headers.get(names.end.lower(), "").lower() == "true"
        told: dict[str, str] = {}
        if starts and not sequence_id:
            sequence_id = f"{_SEQUENCE_PREFIX}{uuid.uuid4()}"
            told = {names.sequence_id.lower(): sequence_id}
        placed = msgspec.structs.replace(
            request,
            sequence_id=sequence_id,
            starts_sequence=starts,
            ends_sequence=ends,
            headers={**request.headers, names.sequence_id.lower(): sequence_id} if told else request.headers,
        )
        return placed, told
