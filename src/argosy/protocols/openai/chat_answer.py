"""Deltas of a chat as bytes: event by event (`ChatChunks`), or folded into one body (`ChatFold`).

Hot path: a chunk that only adds text is a prefix and a suffix encoded once per request, around one JSON string.
Everything rarer (log probabilities, tool calls, the end) goes through the types.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from argosy.protocols.openai.answer_shape import AnswerShape, finite_logprob, timings_body, usage_body
from argosy.protocols.openai.answer_types import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    ContentLogprob,
    FunctionCall,
    FunctionCallPiece,
    ToolCall,
    ToolCallPiece,
    TopLogprob,
)
from argosy.protocols.openai.event_stream import DeltaSource
from argosy.protocols.openai.fold import Folded, fold
from argosy.serving.delta import Delta, TokenText, ToolCallDelta

_encode = msgspec.json.Encoder().encode


class ChatChunks:
    """The events of one streamed chat."""

    def __init__(self, shape: AnswerShape, source: DeltaSource) -> None:
        self._shape = shape
        self._source = source
        self._open = shape.n
        self._is_plain = not (shape.with_logprobs or shape.with_token_ids or shape.with_usage_in_each)
        self._frames = [self._frame(index) for index in range(shape.n)]
        self.is_complete = False

    def opening(self) -> bytes:
        """One event per answer that says who speaks, and what is echoed."""
        events = []
        for index in range(self._shape.n):
            echo = self._shape.echo[index] if self._shape.echo else ""
            choice = ChatChunkChoice(index=index, delta=ChatDelta(role="assistant", content=echo))
            events.append(self._event([choice], is_first=index == 0))
        return b"".join(events)

    def event(self, delta: Delta) -> bytes:
        """The event of a delta; nothing if it shows nothing."""
        if self._is_plain and delta.finish_reason is None and not delta.tool_calls:
            if not delta.text:
                return b""
            before, after = self._frames[delta.choice]
            return before + _encode(delta.text) + after
        return self._full(delta)

    def closing(self) -> bytes:
        """Usage and timings if they were asked for, and the end mark."""
        shape = self._shape
        if not shape.with_usage and not shape.with_timings:
            return b"data: [DONE]\n\n"
        summary = ChatCompletionChunk(
            id=shape.id,
            created=shape.created,
            model=shape.model,
            choices=[],
            usage=usage_body(self._source.usage) if shape.with_usage else UNSET,
            timings=timings_body(shape, self._source),
        )
        return b"data: " + _encode(summary) + b"\n\ndata: [DONE]\n\n"

    def _frame(self, index: int) -> tuple[bytes, bytes]:
        """What stands before and after the JSON string of a text-only chunk: made by the types themselves."""
        mark = "\x00text\x00"
        event = self._event([ChatChunkChoice(index=index, delta=ChatDelta(content=mark))])
        before, _, after = event.partition(_encode(mark))
        return before, after

    def _full(self, delta: Delta) -> bytes:
        content = self._content(delta)
        events = [] if content is None else [self._event([content])]
        if delta.finish_reason is not None:
            self._open -= 1
            self.is_complete = self._open == 0
            last = ChatChunkChoice(
                index=delta.choice,
                delta=ChatDelta(),
                finish_reason=delta.finish_reason,  # type: ignore[arg-type]  # serving says only these four
                stop_reason=delta.stop_reason,
            )
            events.append(self._event([last]))
        return b"".join(events)

    def _content(self, delta: Delta) -> ChatChunkChoice | None:
        """What a delta adds, apart from the end; None if nothing."""
        shape = self._shape
        shown = ChatDelta(
            content=delta.text or UNSET,
            tool_calls=[_piece(call) for call in delta.tool_calls] or UNSET,
        )
        token_ids: list[int] | UnsetType = UNSET
        if shape.with_token_ids and delta.token_ids:
            token_ids = [*delta.token_ids]
        logprobs = chat_logprobs(shape, delta.logprobs) if shape.with_logprobs and delta.logprobs else None
        if shown == ChatDelta() and token_ids is UNSET and logprobs is None:
            return None
        return ChatChunkChoice(index=delta.choice, delta=shown, logprobs=logprobs, token_ids=token_ids)

    def _event(self, choices: list[ChatChunkChoice], *, is_first: bool = False) -> bytes:
        shape = self._shape
        usage = usage_body(self._source.usage) if shape.with_usage_in_each else None
        chunk = ChatCompletionChunk(
            id=shape.id,
            created=shape.created,
            model=shape.model,
            choices=choices,
            usage=usage if shape.with_usage else UNSET,
            prompt_token_ids=[*shape.prompt_token_ids[0]] if is_first and shape.prompt_token_ids else UNSET,
        )
        return b"data: " + _encode(chunk) + b"\n\n"


class ChatFold:
    """All deltas of one chat, folded into its body."""

    def __init__(self, shape: AnswerShape, source: DeltaSource) -> None:
        self._shape = shape
        self._source = source
        self._answers = [Folded() for _ in range(shape.n)]

    def add(self, delta: Delta) -> None:
        """Add a delta."""
        fold(self._answers[delta.choice], delta)

    def body(self) -> bytes:
        """The whole answer."""
        shape = self._shape
        return _encode(
            ChatCompletion(
                id=shape.id,
                created=shape.created,
                model=shape.model,
                choices=[self._choice(index, answer) for index, answer in enumerate(self._answers)],
                usage=usage_body(self._source.usage),
                prompt_token_ids=[*shape.prompt_token_ids[0]] if shape.prompt_token_ids else UNSET,
                timings=timings_body(shape, self._source),
            )
        )

    def _choice(self, index: int, answer: Folded) -> ChatChoice:
        shape = self._shape
        text = (shape.echo[index] if shape.echo else "") + "".join(answer.texts)
        calls = [
            ToolCall(id=call.id, function=FunctionCall(name=call.name, arguments="".join(call.arguments)))
            for call in answer.tool_calls
        ]
        return ChatChoice(
            index=index,
            message=ChatMessage(content=text if text or not calls else None, tool_calls=calls or UNSET),
            logprobs=chat_logprobs(shape, answer.logprobs) if shape.with_logprobs else None,
            finish_reason=answer.finish_reason,  # type: ignore[arg-type]  # serving says only these four
            stop_reason=answer.stop_reason,
            token_ids=answer.token_ids if shape.with_token_ids else UNSET,
        )


def chat_logprobs(shape: AnswerShape, tokens: tuple[TokenText, ...] | list[TokenText]) -> ChatLogprobs:
    """Log probabilities as a chat shows them."""
    return ChatLogprobs(
        content=[
            ContentLogprob(
                token=shape.token_name(token),
                logprob=finite_logprob(token.logprob),
                bytes=[*token.bytes_],
                top_logprobs=[
                    TopLogprob(
                        token=shape.token_name(other), logprob=finite_logprob(other.logprob), bytes=[*other.bytes_]
                    )
                    for other in token.top
                ],
            )
            for token in tokens
        ]
    )


def _piece(call: ToolCallDelta) -> ToolCallPiece:
    """A piece of a call; its first carries id, type and name."""
    function = FunctionCallPiece(
        name=UNSET if call.name is None else call.name,
        arguments=call.arguments if call.arguments or call.name is not None else UNSET,
    )
    if call.id is None:
        return ToolCallPiece(index=call.index, function=function)
    return ToolCallPiece(index=call.index, id=call.id, type="function", function=function)
