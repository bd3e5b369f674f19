"""`POST /v1/completions`: as chat, but from bare prompts, of which one request may hold many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from argosy.core.errors import ContextLengthExceeded
from argosy.core.sampling import SamplingOverrides
from argosy.protocols.openai.answer_shape import AnswerShape, Stamps, shape_of
from argosy.protocols.openai.answer_types import TextCompletion
from argosy.protocols.openai.caller import find_model, generate_options
from argosy.protocols.openai.decode import BodyDecoder
from argosy.protocols.openai.event_stream import DeltaSource, EventStream, WholeAnswer
from argosy.protocols.openai.prompt_batch import PromptBatch
from argosy.protocols.openai.request_fields import check_stream_options, sampling_overrides
from argosy.protocols.openai.text_answer import TextChunks, TextFold
from argosy.protocols.openai.text_or_ids import TextOrIds
from argosy.protocols.openai.text_request import (
    DEFAULT_MAX_TOKENS,
    CompletionRequest,
    check_answers,
    kept_prompt_tokens,
    prompts,
    wanted_logprobs,
)
from argosy.serving.options import GenerateOptions, PreparedRequest
from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import ServedModel
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes

_decoder = BodyDecoder(CompletionRequest)


class TextCompletions:
    """The route, over the models of one registry."""

    def __init__(self, registry: ModelRegistry, stamps: Stamps) -> None:
        self._registry = registry
        self._stamps = stamps

    @describes(
        Operation(
            summary="Continue a text",
            tag="Generate",
            request=CompletionRequest,
            response=TextCompletion,
            stream=TextCompletion,
            error_body=ErrorBody,
            errors=(400, 401, 403, 404, 413, 429, 500, 503, 504),
            example={"prompt": "Once upon a time", "max_tokens": 16},
        )
    )
    async def create(self, request: Request) -> Response:
        """Raises: InvalidRequest, UnsupportedParameter, ContextLengthExceeded, ModelNotFound; then as Generation."""
        fields = await _decoder.read(request)
        check_stream_options(fields)
        model = find_model(self._registry, fields.model)
        logprobs = wanted_logprobs(fields)
        # An encoder-decoder's answer is a whole text that ends by itself; cut at 16 tokens it would be a wrong one.
        default = None if model.info.is_encoder_decoder else DEFAULT_MAX_TOKENS
        max_tokens = default if fields.max_tokens is None else fields.max_tokens
        sampling = sampling_overrides(fields, max_tokens=max_tokens, logprobs=logprobs)
        request_id = self._stamps.new_id()
        options = await generate_options(fields, request, request_id=request_id, sampling=sampling, model=model)
        asked = prompts(fields)
        check_answers(len(asked), options.n)
        given: list[TextOrIds] = []
        prepared: list[PreparedRequest] = []
        for position, prompt in enumerate(asked):
            if position:
                await asyncio.sleep(0)  # a thousand prompts must not hold everyone else up
            given.append(await _edited(prompt, fields, model))
            prepared.append(await _prepare(model, given[-1], _numbered(options, position, len(asked)), fields))
        shape = self._shape(fields, prepared, _echoes(fields, given, model, options.n))
        source = _source(model, prepared, options.n)
        if fields.stream:
            return EventStream(source, TextChunks(shape, source))
        return WholeAnswer(source, TextFold(shape, source))

    def _shape(
        self, fields: CompletionRequest, prepared: Sequence[PreparedRequest], echo: tuple[str, ...]
    ) -> AnswerShape:
        options = prepared[0].options
        request_id = fields.request_id or options.request_id.partition("/")[0]
        model = fields.model or self._registry.list()[0].name
        return msgspec.structs.replace(
            shape_of(fields, id=f"cmpl-{request_id}", created=int(self._stamps.now()), model=model),
            n=len(prepared) * options.n,
            with_logprobs=options.sampling.logprobs is not None,
            echo=echo,
            prompt_token_ids=tuple(each.prompt_token_ids for each in prepared for _ in range(options.n))
            if fields.return_token_ids
            else (),
        )


async def _edited(prompt: TextOrIds, fields: CompletionRequest, model: ServedModel) -> TextOrIds:
    """The prompt as token ids if the request changes how it is tokenised or cuts it; else as it is."""
    keep = kept_prompt_tokens(fields, model.max_model_len)
    if isinstance(prompt, str) and (keep is not None or fields.add_special_tokens is False):
        prompt = await model.tokenize(prompt, add_special_tokens=fields.add_special_tokens is not False)
    return prompt if keep is None else prompt[-keep:]


async def _prepare(
    model: ServedModel, prompt: TextOrIds, options: GenerateOptions, fields: CompletionRequest
) -> PreparedRequest:
    """The checked request. The default of max_tokens gives way to what the context still holds."""
    try:
        return await model.prepare_completion(prompt, options)
    except ContextLengthExceeded:
        if fields.max_tokens is not None:
            raise
        shorter: SamplingOverrides = msgspec.structs.replace(options.sampling, max_tokens=None)
        return await model.prepare_completion(prompt, msgspec.structs.replace(options, sampling=shorter))


def _numbered(options: GenerateOptions, position: int, count: int) -> GenerateOptions:
    """Options with an id of its own for each of several prompts. The prefix is the first one's."""
    if count == 1:
        return options
    blocks = options.prefix_blocks if position == 0 else ()
    return msgspec.structs.replace(options, request_id=f"{options.request_id}/{position}", prefix_blocks=blocks)


def _echoes(fields: CompletionRequest, given: Sequence[TextOrIds], model: ServedModel, n: int) -> tuple[str, ...]:
    """What stands before each answer when `echo` is set."""
    if not fields.echo:
        return ()
    texts = [prompt if isinstance(prompt, str) else model.detokenize(prompt) for prompt in given]
    return tuple(text for text in texts for _ in range(n))


def _source(model: ServedModel, prepared: Sequence[PreparedRequest], answers_each: int) -> DeltaSource:
    if len(prepared) == 1:
        return model.generate(prepared[0])
    return PromptBatch([model.generate(each) for each in prepared], answers_each)
