"""One answer as the sum of its deltas: what streaming sends in pieces, the other response sends whole."""

from __future__ import annotations

from argosy.core.errors import EngineError
from argosy.serving.delta import Delta, TokenText, ToolCallDelta


class FoldedCall:
    """One tool call, its arguments in the pieces they came in."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class Folded:
    """One answer so far."""

    __slots__ = ("finish_reason", "logprobs", "stop_reason", "texts", "token_ids", "tool_calls")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.token_ids: list[int] = []
        self.logprobs: list[TokenText] = []
        self.tool_calls: list[FoldedCall] = []
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None


def fold(answer: Folded, delta: Delta) -> None:
    """Add a delta to its answer. Raises: EngineError if a tool call begins in its middle."""
    if delta.text:
        answer.texts.append(delta.text)
    answer.token_ids.extend(delta.token_ids)
    answer.logprobs.extend(delta.logprobs)
    for piece in delta.tool_calls:
        _fold_call(answer.tool_calls, piece)
    if delta.finish_reason is not None:
        answer.finish_reason = delta.finish_reason
        answer.stop_reason = delta.stop_reason


def _fold_call(calls: list[FoldedCall], piece: ToolCallDelta) -> None:
    if piece.index > len(calls):
        raise EngineError(f"tool call {piece.index} came before tool call {len(calls)}: report this")
    if piece.index == len(calls):
        calls.append(FoldedCall())
    call = calls[piece.index]
    call.id = piece.id or call.id
    call.name = piece.name or call.name
    call.arguments.append(piece.arguments)
