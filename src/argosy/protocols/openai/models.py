"""`GET /v1/models` and `GET /v1/models/{id}`: what is served, adapters included."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import ServedModel
from argosy.web.models import DESCRIBE_MODEL, LIST_MODELS, ModelCard, card_list, card_named
from argosy.web.operation import describes


class Models:
    """The routes, over one registry."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    @describes(LIST_MODELS)
    async def list(self, request: Request) -> Response:
        """Every served model and adapter."""
        return card_list(card for model in self._registry.list() for card in _cards(model))

    @describes(DESCRIBE_MODEL)
    async def retrieve(self, request: Request) -> Response:
        """One served model, alias or adapter. Raises: ModelNotFound."""
        name = request.path_params["model"]
        return card_named(name, _cards(self._registry.get(name)))


def _cards(model: ServedModel) -> Iterator[ModelCard]:
    """The model's own card, then one for each adapter: its root is its directory."""
    base = ModelCard(id=model.name, created=model.created, root=model.root, max_model_len=model.max_model_len)
    yield base
    for name, adapter in model.adapters.items():
        yield msgspec.structs.replace(base, id=name, root=str(adapter.path), parent=model.name)
