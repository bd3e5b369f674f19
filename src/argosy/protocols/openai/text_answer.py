"""Deltas of text completions as bytes: event by event (`TextChunks`), or folded into one body (`TextFold`).

The same hot path as `chat_answer`: bytes made once per request around one JSON string.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from argosy.protocols.openai.answer_shape import AnswerShape, finite_logprob, timings_body, token_characters, usage_body
from argosy.protocols.openai.answer_types import TextChoice, TextCompletion, TextLogprobs
from argosy.protocols.openai.event_stream import DeltaSource
from argosy.protocols.openai.fold import Folded, fold
from argosy.serving.delta import Delta, TokenText

_encode = msgspec.json.Encoder().encode


class TextChunks:
    """The events of one streamed completion request."""

    def __init__(self, shape: AnswerShape, source: DeltaSource) -> None:
        self._shape = shape
        self._source = source
        self._open = shape.n
        self._is_plain = not (shape.with_logprobs or shape.with_token_ids or shape.with_usage_in_each)
        self._frames = [self._frame(index) for index in range(shape.n)]
        self._offsets = [len(echo) for echo in shape.echo] or [0] * shape.n
        self.is_complete = False

    def opening(self) -> bytes:
        """One event per answer, if there is something to echo or the prompt's token ids were asked for."""
        shape = self._shape
        if not shape.echo and not shape.prompt_token_ids:
            return b""
        return b"".join(
            self._event(
                TextChoice(
                    index=index,
                    text=shape.echo[index] if shape.echo else "",
                    finish_reason=None,
                    prompt_token_ids=[*shape.prompt_token_ids[index]] if shape.prompt_token_ids else UNSET,
                )
            )
            for index in range(shape.n)
        )

    def event(self, delta: Delta) -> bytes:
        """The event of a delta; nothing if it shows nothing."""
        if self._is_plain and delta.finish_reason is None:
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
        summary = TextCompletion(
            id=shape.id,
            created=shape.created,
            model=shape.model,
            choices=[],
            usage=usage_body(self._source.usage) if shape.with_usage else UNSET,
            timings=timings_body(shape, self._source),
        )
        return b"data: " + _encode(summary) + b"\n\ndata: [DONE]\n\n"

    def _frame(self, index: int) -> tuple[bytes, bytes]:
        """What stands before and after the JSON string of a text-only event: made by the types themselves."""
        mark = "\x00text\x00"
        event = self._event(TextChoice(index=index, text=mark, finish_reason=None))
        before, _, after = event.partition(_encode(mark))
        return before, after

    def _full(self, delta: Delta) -> bytes:
        shape = self._shape
        if delta.finish_reason is not None:
            self._open -= 1
            self.is_complete = self._open == 0
        elif not delta.text and not delta.logprobs and not (shape.with_token_ids and delta.token_ids):
            return b""
        logprobs = None
        if shape.with_logprobs and delta.logprobs:
            logprobs = text_logprobs(shape, delta.logprobs, self._offsets[delta.choice])
            self._offsets[delta.choice] += sum(len(token_characters(token)) for token in delta.logprobs)
        token_ids: list[int] | UnsetType = [*delta.token_ids] if shape.with_token_ids else UNSET
        return self._event(
            TextChoice(
                index=delta.choice,
                text=delta.text,
                logprobs=logprobs,
                finish_reason=delta.finish_reason,  # type: ignore[arg-type]  # serving says only these four
                stop_reason=delta.stop_reason,
                token_ids=token_ids,
            )
        )

    def _event(self, choice: TextChoice) -> bytes:
        shape = self._shape
        usage = usage_body(self._source.usage) if shape.with_usage_in_each else None
        chunk = TextCompletion(
            id=shape.id,
            created=shape.created,
            model=shape.model,
            choices=[choice],
            usage=usage if shape.with_usage else UNSET,
        )
        return b"data: " + _encode(chunk) + b"\n\n"


class TextFold:
    """All deltas of one completion request, folded into its body."""

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
            TextCompletion(
                id=shape.id,
                created=shape.created,
                model=shape.model,
                choices=[self._choice(index, answer) for index, answer in enumerate(self._answers)],
                usage=usage_body(self._source.usage),
                timings=timings_body(shape, self._source),
            )
        )

    def _choice(self, index: int, answer: Folded) -> TextChoice:
        shape = self._shape
        echo = shape.echo[index] if shape.echo else ""
        return TextChoice(
            index=index,
            text=echo + "".join(answer.texts),
            logprobs=text_logprobs(shape, answer.logprobs, len(echo)) if shape.with_logprobs else None,
            finish_reason=answer.finish_reason,  # type: ignore[arg-type]  # serving says only these four
            stop_reason=answer.stop_reason,
            token_ids=answer.token_ids if shape.with_token_ids else UNSET,
            prompt_token_ids=[*shape.prompt_token_ids[index]] if shape.prompt_token_ids else UNSET,
        )


def text_logprobs(shape: AnswerShape, tokens: tuple[TokenText, ...] | list[TokenText], offset: int) -> TextLogprobs:
    """Log probabilities as a text completion shows them; `offset` is where the first token begins.

    Source: vLLM 0.32: `top_logprobs` holds the chosen token too.
    """
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token_characters(token))
    return TextLogprobs(
        text_offset=offsets,
        token_logprobs=[finite_logprob(token.logprob) for token in tokens],
        tokens=[shape.token_name(token) for token in tokens],
        top_logprobs=[
            {shape.token_name(other): finite_logprob(other.logprob) for other in (*token.top, token)}
            for token in tokens
        ],
    )
