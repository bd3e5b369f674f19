"""One generation as an engine sees it: token ids in, token ids out.

What is made per token holds values only, so the garbage collector need not look at it (`gc=False`).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from argosy.core.adapter import Adapter
from argosy.core.sampling import SamplingParams


class FinishReason(StrEnum):
    """Why an answer ended. Source: OpenAI's `finish_reason`, plus our two failures."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The log probability (natural) of one chosen token, and of the likeliest instead of it, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate. Exists only if valid: `serving` is its only constructor outside tests.

    priority: smaller runs first where the engine can; 0 is normal.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    adapter: Adapter | None = None
    priority: int = 0


class GenerateOutput(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one step added: new tokens only, never the whole answer.

    The last output, and only it, carries `finish_reason`. A token that ended the answer (end of text or a stop
    token) is part of `token_ids`, and `stop_token_id` names it. `logprobs` is as long as `token_ids`, or empty.
    num_cached_tokens: prompt tokens taken from the prefix cache, when the engine knows; on the first output.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    num_cached_tokens: int | None = None
