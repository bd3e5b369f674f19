"""SageMaker's one path for everything: `POST /invocations` goes by what is asked, and `/models/{model}/invoke`.

A query `model_name` names an archive. Without one, a JSON body with `messages` or `prompt` is an OpenAI request, if
this server has a generating model; all else goes to the one model that was loaded at the start, or, if there are
several, to the one that a field `model_name` of the form names (design: contract §6; InferenceRequestHandler of 0.12).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.core.errors import InvalidRequest
from argosy.protocols.torchserve.inputs import parts_of
from argosy.protocols.torchserve.operations import PREDICT, operation
from argosy.protocols.torchserve.predictions import METHODS, Predictions
from argosy.web.operation import describes

Endpoint = Callable[[Request], Awaitable[Response]]

_OPENAI_PATHS = {"messages": "/v1/chat/completions", "prompt": "/v1/completions"}


class _Shape(msgspec.Struct):
    """All we read of a body to know whose it is."""

    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    prompt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Shape)


class Invocations:
    """The routes. openai: the OpenAI API's, as far as this server has it. generates: whether it has a model for it."""

    def __init__(
        self,
        predictions: Predictions,
        *,
        openai: Sequence[Route],
        generates: Callable[[], bool],
    ) -> None:
        self._predictions = predictions
        self._generates = generates
        self._openai: dict[str, Endpoint] = {route.path: route.endpoint for route in openai}

    def routes(self) -> list[Route]:
        """Both paths."""
        return [
            Route("/invocations", self.invoke, methods=METHODS),
            Route("/models/{model}/invoke", self.invoke_named, methods=METHODS),
        ]

    @describes(operation("SageMaker: ask a named model", PREDICT, 400, 404, 413, 500, 503, 504, 507))
    async def invoke_named(self, request: Request) -> Response:
        """One model, named in the path. Raises: as `Predictions.predict`."""
        return await self._predictions.answer(request, request.scope["path_params"])

    @describes(operation("SageMaker: by what is asked", PREDICT, 400, 404, 413, 500, 503, 504, 507))
    async def invoke(self, request: Request) -> Response:
        """Raises: InvalidRequest if it cannot be known which model is meant; as the route that answers."""
        named: dict[str, Any] = {"model": request.query_params.get("model_name", "")}
        if not named["model"]:
            if self._generates() and (endpoint := self._openai_endpoint(await request.body())) is not None:
                request.scope["state"]["is_openai"] = True
                return await endpoint(request)
            startup_models = self._predictions.startup_models()
            named["model"] = startup_models[0] if len(startup_models) == 1 else await _named_in_form(request)
            if not named["model"]:
                raise InvalidRequest(self._name_wanted(len(startup_models)), param="model_name")
        request.scope["path_params"] = named
        return await self._predictions.answer(request, named, with_query=True)

    def _name_wanted(self, num_models: int) -> str:
        text = "Parameter model_name is required."
        if self._predictions.is_strict:
            return text
        return f"{text} This server was started with {num_models} models: name one in /invocations?model_name=…"

    def _openai_endpoint(self, body: bytes) -> Endpoint | None:
        try:
            shape = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        asked = next((name for name in _OPENAI_PATHS if getattr(shape, name) is not msgspec.UNSET), None)
        return self._openai.get(_OPENAI_PATHS[asked]) if asked else None


async def _named_in_form(request: Request) -> str:
    """The model that a form names, which the handler gets as an input, too; "" = none. Raises: InvalidRequest."""
    parts = parts_of(await request.body(), request.headers.get("content-type", ""))
    return next((part.content.decode("utf-8", "replace") for part in parts if part.name == "model_name"), "")
