"""`POST /v1/chat/completions`: bytes → typed request → prepared request → generation → events or one body."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from argosy.protocols.openai.answer_shape import AnswerShape, Stamps, shape_of
from argosy.protocols.openai.answer_types import ChatCompletion, ChatCompletionChunk
from argosy.protocols.openai.caller import find_model, generate_options
from argosy.protocols.openai.chat_answer import ChatChunks, ChatFold
from argosy.protocols.openai.chat_request import (
    ChatCompletionRequest,
    chat_prompt,
    echoed_text,
    max_completion_tokens,
    wanted_logprobs,
)
from argosy.protocols.openai.decode import BodyDecoder
from argosy.protocols.openai.event_stream import EventStream, WholeAnswer
from argosy.protocols.openai.request_fields import check_stream_options, sampling_overrides
from argosy.serving.options import PreparedRequest
from argosy.serving.registry import ModelRegistry
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes

_decoder = BodyDecoder(ChatCompletionRequest)


class ChatCompletions:
    """The route, over the models of one registry."""

    def __init__(self, registry: ModelRegistry, stamps: Stamps) -> None:
        self._registry = registry
        self._stamps = stamps

    @describes(
        Operation(
            summary="Answer a conversation",
            tag="Generate",
            request=ChatCompletionRequest,
            response=ChatCompletion,
            stream=ChatCompletionChunk,
            error_body=ErrorBody,
            errors=(400, 401, 403, 404, 413, 429, 500, 503, 504),
            example={"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16},
        )
    )
    async def create(self, request: Request) -> Response:
        """Raises: InvalidRequest, UnsupportedParameter, ContextLengthExceeded, ModelNotFound; then as Generation."""
        fields = await _decoder.read(request)
        check_stream_options(fields)
        model = find_model(self._registry, fields.model)
        request_id = self._stamps.new_id()
        logprobs = wanted_logprobs(fields)
        sampling = sampling_overrides(fields, max_tokens=max_completion_tokens(fields), logprobs=logprobs)
        options = await generate_options(fields, request, request_id=request_id, sampling=sampling, model=model)
        prepared = await model.prepare_chat(chat_prompt(fields), options)
        shape = self._shape(fields, prepared, fields.model or model.name)
        generation = model.generate(prepared)
        if fields.stream:
            return EventStream(generation, ChatChunks(shape, generation))
        return WholeAnswer(generation, ChatFold(shape, generation))

    def _shape(self, fields: ChatCompletionRequest, prepared: PreparedRequest, model: str) -> AnswerShape:
        options = prepared.options
        echo = echoed_text(fields)
        return msgspec.structs.replace(
            shape_of(
                fields,
                id=f"chatcmpl-{fields.request_id or options.request_id}",
                created=int(self._stamps.now()),
                model=model,
            ),
            n=options.n,
            with_logprobs=options.sampling.logprobs is not None,
            echo=(echo,) * options.n if echo else (),
            prompt_token_ids=(prepared.prompt_token_ids,) if fields.return_token_ids else (),
        )
