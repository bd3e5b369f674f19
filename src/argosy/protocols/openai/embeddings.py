"""`POST /v1/embeddings`, where the model makes any.

Source: OpenAI's API reference; `base64` is little-endian float32, which OpenAI's own client asks for by default.
"""

from __future__ import annotations

import base64
from array import array
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from argosy.protocols.openai.answer_shape import Stamps
from argosy.protocols.openai.caller import find_model
from argosy.protocols.openai.decode import BodyDecoder
from argosy.protocols.openai.request_fields import TokenId
from argosy.protocols.openai.text_or_ids import FieldRule, each_of
from argosy.serving.registry import ModelRegistry
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes

# 2,048 is OpenAI's limit of items in `input`.
_INPUTS = FieldRule(field="input", plural="inputs", items="items", max_items=2048)


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body. input: a text, texts, one list of token ids, or lists of them."""

    input: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """One vector; a string if base64 was asked for."""

    index: int
    object: Literal["embedding"] = "embedding"
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per input, in their order."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage


_decoder = BodyDecoder(EmbeddingRequest)


class Embeddings:
    """The route, over the models of one registry."""

    def __init__(self, registry: ModelRegistry, stamps: Stamps) -> None:
        self._registry = registry
        self._stamps = stamps

    @describes(
        Operation(
            summary="Turn texts into vectors",
            tag="Embeddings",
            request=EmbeddingRequest,
            response=EmbeddingList,
            error_body=ErrorBody,
            errors=(400, 401, 403, 404, 413, 429, 500, 503, 504),
            example={"input": "Hello world"},
        )
    )
    async def create(self, request: Request) -> Response:
        """Raises: UnsupportedParameter if the model makes no vectors; InvalidRequest, ModelNotFound, EngineError."""
        fields = await _decoder.read(request)
        model = find_model(self._registry, fields.model)
        result = await model.embed(each_of(fields.input, _INPUTS))
        as_text = fields.encoding_format == "base64"
        body = EmbeddingList(
            id=f"embd-{self._stamps.new_id()}",
            created=int(self._stamps.now()),
            model=fields.model or model.name,
            data=[
                Embedding(index=index, embedding=_base64(vector) if as_text else vector)
                for index, vector in enumerate(result.vectors)
            ],
            usage=EmbeddingUsage(prompt_tokens=result.prompt_tokens, total_tokens=result.prompt_tokens),
        )
        return Response(msgspec.json.encode(body), media_type="application/json")


def _base64(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()
