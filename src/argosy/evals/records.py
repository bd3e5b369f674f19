"""What one request saw: the raw material of every figure.

All times are seconds on one monotonic clock, counted from the start of the measured phase once a record is
finished (see `shifted`). A record without `error` got a complete answer; `interrupted` ones were cut by us.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ErrorKind(StrEnum):
    """The ways a request can fail, as the report groups them. HTTP statuses are kinds of their own: `http_429`."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    STREAM_ERROR = "stream_error"
    EMPTY = "empty"
    INTERRUPTED = "interrupted"


class RequestRecord(msgspec.Struct, kw_only=True):
    """One request: when it should have gone out, when it did, and when each piece of the answer came.

    chunk_times: arrival of each piece with text in it; a piece may hold several tokens or less than one character.
    completion_tokens, prompt_tokens, cached_tokens: as the server's `usage` says; None = it did not say.
    """

    index: int
    intended_at: float
    sent_at: float = 0.0
    ended_at: float = 0.0
    chunk_times: list[float] = []
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    status: int | None = None
    error: str | None = None
    error_detail: str = ""

    @property
    def output_tokens(self) -> int:
        """Tokens of the answer: by `usage` where given, else the number of pieces."""
        return len(self.chunk_times) if self.completion_tokens is None else self.completion_tokens

    @property
    def ttft_seconds(self) -> float | None:
        """Intended send to first text. Source: inference-perf, "time to first token", but from intended send."""
        return self.chunk_times[0] - self.intended_at if self.chunk_times else None

    @property
    def tpot_seconds(self) -> float | None:
        """Mean time of each token after the first; None for answers of one token.

        Source: inference-perf, (E2E - TTFT) / (output tokens - 1), with E2E up to the last text.
        """
        if not self.chunk_times or self.output_tokens < 2:
            return None
        return (self.chunk_times[-1] - self.chunk_times[0]) / (self.output_tokens - 1)

    @property
    def e2e_seconds(self) -> float:
        """Intended send to end of the response."""
        return self.ended_at - self.intended_at

    def shifted(self, origin: float) -> RequestRecord:
        """The same record with its times counted from `origin`, to the microsecond."""
        return msgspec.structs.replace(
            self,
            intended_at=round(self.intended_at - origin, 6),
            sent_at=round(self.sent_at - origin, 6),
            ended_at=round(self.ended_at - origin, 6),
            chunk_times=[round(at - origin, 6) for at in self.chunk_times],
        )
