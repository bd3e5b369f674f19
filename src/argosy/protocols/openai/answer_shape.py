"""What a response looks like besides its text: its identity, and which optional parts the request asked for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from argosy.protocols.openai.answer_types import PromptTokensDetails, TimingsBody, UsageBody
from argosy.protocols.openai.event_stream import DeltaSource
from argosy.protocols.openai.request_fields import GenerationFields, StreamOptions
from argosy.serving.delta import TokenText, Usage

_LEAST_LOGPROB = -9999.0  # JSON has no -Infinity. Source: OpenAI writes this number instead, and so does vLLM.


class Stamps(msgspec.Struct, frozen=True, kw_only=True):
    """Where ids and times come from: the only inputs of an answer that are not in the request.

    new_id: unique in this process. now: unix seconds.
    """

    new_id: Callable[[], str] = lambda: uuid.uuid4().hex
    now: Callable[[], float] = time.time


class AnswerShape(msgspec.Struct, frozen=True, kw_only=True):
    """id, created, model: as in the body. n: answers. The rest: optional parts that were asked for.

    echo: what stands before each answer, one per answer or empty. prompt_token_ids: one per answer, if wanted.
    """

    id: str
    created: int
    model: str
    n: int = 1
    with_usage: bool = False
    with_usage_in_each: bool = False
    with_logprobs: bool = False
    with_token_ids: bool = False
    with_timings: bool = False
    tokens_as_ids: bool = False
    echo: tuple[str, ...] = ()
    prompt_token_ids: tuple[tuple[int, ...], ...] = ()

    def token_name(self, token: TokenText) -> str:
        """The token as a log probability names it: the text it stands for, part of a character as U+FFFD."""
        return f"token_id:{token.token_id}" if self.tokens_as_ids else token_characters(token)


def shape_of(fields: GenerationFields, *, id: str, created: int, model: str) -> AnswerShape:  # noqa: A002  # wire name
    """The shape the shared fields of a request ask for."""
    options = fields.stream_options or StreamOptions()
    return AnswerShape(
        id=id,
        created=created,
        model=model,
        with_usage=bool(options.include_usage),
        with_usage_in_each=bool(options.include_usage and options.continuous_usage_stats),
        with_token_ids=bool(fields.return_token_ids),
        with_timings=bool(fields.return_timings),
        tokens_as_ids=bool(fields.return_tokens_as_token_ids),
    )


def usage_body(usage: Usage) -> UsageBody:
    """Usage as the wire shows it."""
    return UsageBody(
        prompt_tokens=usage.prompt_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        completion_tokens=usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
    )


def timings_body(shape: AnswerShape, source: DeltaSource) -> TimingsBody | UnsetType:
    """Timings as the wire shows them, if they were asked for."""
    if not shape.with_timings:
        return UNSET
    timings, usage = source.timings, source.usage
    decode_seconds = timings.decode_seconds
    rate = (usage.completion_tokens - 1) / decode_seconds if decode_seconds else None
    return TimingsBody(
        queue_ms=_milliseconds(timings.queue_seconds),
        prompt_ms=_milliseconds(timings.prefill_seconds),
        predicted_ms=_milliseconds(decode_seconds),
        tokens_per_second=None if rate is None else round(rate, 2),
    )


def token_characters(token: TokenText) -> str:
    """The text a token stands for; U+FFFD for part of a character."""
    return token.bytes_.decode("utf-8", "replace")


def finite_logprob(logprob: float) -> float:
    """A log probability that JSON can carry."""
    return max(logprob, _LEAST_LOGPROB)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
