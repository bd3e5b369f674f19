"""`POST /tokenize` and `POST /detokenize`: text to token ids and back, as the model does it.

Source: vLLM 0.32 `TokenizeCompletionRequest`, `TokenizeChatRequest`, `DetokenizeRequest`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from argosy.core.errors import InvalidRequest
from argosy.protocols.openai.caller import find_model
from argosy.protocols.openai.chat_request import (
    MAX_MESSAGES,
    MAX_TOOLS,
    Message,
    Tool,
    template_messages,
    template_tools,
)
from argosy.protocols.openai.decode import BodyDecoder
from argosy.protocols.openai.request_fields import TokenId
from argosy.serving.options import ChatPrompt
from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import ServedModel
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes

MAX_DETOKENIZED = 1_000_000


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either a `prompt` or `messages`; the fields below those belong to messages."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class TokenizeResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The token ids, and each one's text if it was asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | UnsetType | None = UNSET


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Token ids."""

    model: str | None = None
    tokens: Annotated[list[TokenId], Meta(max_length=MAX_DETOKENIZED)]


class DetokenizeResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Their text, special tokens included."""

    prompt: str


_tokenize_decoder = BodyDecoder(TokenizeRequest)
_detokenize_decoder = BodyDecoder(DetokenizeRequest)


class Tokens:
    """The routes, over the models of one registry."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    @describes(
        Operation(
            summary="Turn text or a conversation into token ids",
            tag="Tokens",
            request=TokenizeRequest,
            response=TokenizeResponse,
            error_body=ErrorBody,
            errors=(400, 401, 403, 404, 413),
            example={"prompt": "Hello world"},
        )
    )
    async def tokenize(self, request: Request) -> Response:
        """Raises: InvalidRequest, ModelNotFound, ContextLengthExceeded."""
        fields = await _tokenize_decoder.read(request)
        model = find_model(self._registry, fields.model)
        token_ids = await _token_ids(fields, model)
        body = TokenizeResponse(
            count=len(token_ids),
            max_model_len=model.max_model_len,
            tokens=token_ids,
            token_strs=model.token_texts(token_ids) if fields.return_token_strs else UNSET,
        )
        return Response(msgspec.json.encode(body), media_type="application/json")

    @describes(
        Operation(
            summary="Turn token ids into text",
            tag="Tokens",
            request=DetokenizeRequest,
            response=DetokenizeResponse,
            error_body=ErrorBody,
            errors=(400, 401, 403, 404, 413),
            example={"tokens": [1, 2, 3]},
        )
    )
    async def detokenize(self, request: Request) -> Response:
        """Raises: InvalidRequest, ModelNotFound."""
        fields = await _detokenize_decoder.read(request)
        model = find_model(self._registry, fields.model)
        body = DetokenizeResponse(prompt=model.detokenize(fields.tokens))
        return Response(msgspec.json.encode(body), media_type="application/json")


async def _token_ids(fields: TokenizeRequest, model: ServedModel) -> list[int]:
    if (fields.prompt is None) == (fields.messages is None):
        raise InvalidRequest("send either prompt or messages", param="prompt")
    if fields.prompt is not None:
        _require_unset(fields, ("tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs"))
        return await model.tokenize(fields.prompt, add_special_tokens=fields.add_special_tokens is not False)
    _require_unset(fields, ("add_special_tokens",))
    return await model.tokenize_chat(_chat_prompt(fields))


def _require_unset(fields: TokenizeRequest, names: tuple[str, ...]) -> None:
    """Refuse what would change nothing for this kind of input. Raises: InvalidRequest."""
    for name in names:
        if getattr(fields, name):
            other = "messages" if fields.messages is None else "prompt"
            raise InvalidRequest(f"{name} belongs to {other}: leave it out, or send {other}", param=name)


def _chat_prompt(fields: TokenizeRequest) -> ChatPrompt:
    continues = bool(fields.continue_final_message)
    if continues and fields.add_generation_prompt:
        raise InvalidRequest(
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
            param="continue_final_message",
        )
    return ChatPrompt(
        messages=template_messages(fields.messages or []),
        tools=template_tools(fields.tools),
        add_generation_prompt=not continues and fields.add_generation_prompt is not False,
        continue_final_message=continues,
        template_variables=fields.chat_template_kwargs or {},
    )
