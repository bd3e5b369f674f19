"""From response bytes to a `RequestRecord`: what an OpenAI-compatible stream says, and when it said it.

No socket and no clock here: the connection calls `head`, `body` and `finish` with the time of arrival, so tests
replay bytes at scripted times. The typed decoder skips what it does not know, which costs about a microsecond.
Source: OpenAI API reference, "Streaming" of chat completions and completions; vLLM's `error` events.
"""

from __future__ import annotations

import msgspec

from argosy.evals.records import ErrorKind, RequestRecord
from argosy.evals.sse import SseReader

MAX_ERROR_BODY_BYTES = 64 * 1024
MAX_JSON_BODY_BYTES = 16 * 1024 * 1024
_DETAIL_CHARACTERS = 300


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[object] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: object = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class Answer:
    """The answer to one request while it arrives. `finish` leaves `record` with either an answer or an error."""

    def __init__(self, record: RequestRecord) -> None:
        self.record = record
        self.json_body = b""
        self._events = SseReader()
        self._is_stream = False
        self._is_done = False

    def head(self, status: int, content_type: str) -> None:
        """Status line and headers have come."""
        self.record.status = status
        self._is_stream = status == 200 and content_type.startswith("text/event-stream")

    def body(self, chunk: bytes, now: float) -> None:
        """A piece of the body came at `now`. Raises: MalformedStream, msgspec.DecodeError."""
        if not self._is_stream:
            limit = MAX_JSON_BODY_BYTES if self.record.status == 200 else MAX_ERROR_BODY_BYTES
            self.json_body = (self.json_body + chunk)[:limit]
            return
        for data in self._events.feed(chunk):
            if data == b"[DONE]":
                self._is_done = True
            else:
                self._event(_decode_chunk(data), data, now)

    def finish(self, now: float) -> None:
        """The response ended at `now`, whole as HTTP sees it."""
        record = self.record
        record.ended_at = now
        if record.error is not None:
            return
        if record.status != 200:
            self.fail(f"http_{record.status}", error_text(self.json_body), now)
        elif self._is_stream and not self._is_done and record.finish_reason is None:
            self.fail(ErrorKind.TRUNCATED, "the stream ended without finish_reason and without [DONE]", now)
        elif self._is_stream and not record.chunk_times:
            self.fail(ErrorKind.EMPTY, "the answer holds no text", now)

    def fail(self, kind: str, detail: str, now: float) -> None:
        """The request is lost; the first reason stays."""
        self.record.ended_at = now
        if self.record.error is None:
            self.record.error = str(kind)
            self.record.error_detail = detail[:_DETAIL_CHARACTERS]

    def _event(self, chunk: _Chunk, data: bytes, now: float) -> None:
        record = self.record
        if chunk.error is not None:
            self.fail(ErrorKind.STREAM_ERROR, error_text(data), now)
        for choice in chunk.choices:
            if _has_text(choice):
                record.chunk_times.append(now)
            if choice.finish_reason is not None:
                record.finish_reason = choice.finish_reason
        if chunk.usage is not None:
            record.prompt_tokens = chunk.usage.prompt_tokens
            record.completion_tokens = chunk.usage.completion_tokens
            details = chunk.usage.prompt_tokens_details
            record.cached_tokens = details.cached_tokens if details else None


def _has_text(choice: _Choice) -> bool:
    if choice.text:
        return True
    delta = choice.delta
    return delta is not None and bool(
        delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls or delta.refusal
    )


def error_text(body: bytes) -> str:
    """The message inside an error body, in whichever of the common shapes it comes; else the body's beginning."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body[:_DETAIL_CHARACTERS].decode("utf-8", errors="replace")
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return found if isinstance(found, str) else msgspec.json.encode(found).decode()
