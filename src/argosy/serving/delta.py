"""What a served model says, piece by piece, in text. Protocols turn these into JSON.

Deltas are made per token and hold values only, so the garbage collector need not look at them (`gc=False`).
"""

from __future__ import annotations

import msgspec


class TokenText(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One token as text with its natural log probability; `top` holds the likeliest instead of it, best first.

    bytes_: the token's own bytes, which need not be whole characters.
    """

    token_id: int
    text: str
    logprob: float
    bytes_: bytes
    top: tuple[TokenText, ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A piece of one tool call: `id` and `name` in its first piece only, `arguments` a piece of JSON."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Delta(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one step added to one choice. The last delta of a choice, and only it, carries `finish_reason`.

    choice: which of the `n` answers. text: printable text, never half a character.
    finish_reason: stop, length, tool_calls or abort. stop_reason: the stop string or token id that ended it.
    """

    choice: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenText, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class Usage(msgspec.Struct, kw_only=True):
    """Tokens of one request, over all its choices. Grows while the request runs."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
