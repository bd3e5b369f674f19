"""What `/v1/models` says, on every server of ours: the wire types, and how a name is looked up.

Source: OpenAI's model object; vLLM 0.32 adds root, parent and max_model_len.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
from starlette.responses import Response

from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One name a request may use. root: what is behind it. parent: whose adapter it is; null for none.

    max_model_len: the longest prompt with its answer, in tokens; left out where only replicas know it.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["argosy"] = "argosy"
    root: str
    parent: str | None = None
    max_model_len: int | msgspec.UnsetType = msgspec.UNSET


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Every name of this server."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


LIST_MODELS = Operation(
    summary="List the models served here",
    tag="Models",
    response=ModelList,
    error_body=ErrorBody,
    errors=(401, 403),
)
DESCRIBE_MODEL = Operation(
    summary="Describe one model",
    tag="Models",
    response=ModelCard,
    error_body=ErrorBody,
    errors=(401, 403, 404),
)


def card_list(cards: Iterable[ModelCard]) -> Response:
    """The answer to `GET /v1/models`."""
    return _json(ModelList(data=[*cards]))


def card_named(name: str, cards: Iterable[ModelCard]) -> Response:
    """The answer to `GET /v1/models/{name}`. cards: of the model that has this name; its own comes first.

    A name that has no card of its own (an alias, or none where there is one model) gets the model's.
    """
    own, *others = cards
    found = next((card for card in others if card.id == name), own)
    return _json(msgspec.structs.replace(found, id=name or found.id))


def _json(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
