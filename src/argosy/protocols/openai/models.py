"""`GET /v1/models` and `GET /v1/models/{id}`: what is served, adapters included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import ServedModel
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One name a request may use. root: what it was loaded from. parent: an adapter's base model.

    Source: OpenAI's model object; vLLM 0.32 adds root, parent and max_model_len.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["argosy"] = "argosy"
    root: str
    parent: str | None = None
    max_model_len: int


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Every model of this server."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Models:
    """The routes, over one registry."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    @describes(
        Operation(
            summary="List the models served here",
            tag="Models",
            response=ModelList,
            error_body=ErrorBody,
            errors=(401, 403),
        )
    )
    async def list(self, request: Request) -> Response:
        """Every served model and adapter."""
        cards = [card for model in self._registry.list() for card in _cards(model)]
        return _json(ModelList(data=cards))

    @describes(
        Operation(
            summary="Describe one model",
            tag="Models",
            response=ModelCard,
            error_body=ErrorBody,
            errors=(401, 403, 404),
        )
    )
    async def retrieve(self, request: Request) -> Response:
        """One served model, alias or adapter. Raises: ModelNotFound."""
        name = request.path_params["model"]
        model = self._registry.get(name)
        for card in _cards(model):
            if card.id == name:
                return _json(card)
        return _json(msgspec.structs.replace(next(_cards(model)), id=name))


def _cards(model: ServedModel) -> Iterator[ModelCard]:
    """The model's own card, then one for each adapter."""
    base = ModelCard(id=model.name, created=model.created, root=model.root, max_model_len=model.max_model_len)
    yield base
    for name, adapter in model.adapters.items():
        yield msgspec.structs.replace(base, id=name, root=str(adapter.path), parent=model.name)


def _json(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
