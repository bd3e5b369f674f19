"""One answer under way: what the engine says, step by step, as text, log probabilities and tool calls."""

from __future__ import annotations

from uuid import uuid4

import msgspec

from argosy.core.errors import EngineError
from argosy.core.generation import FinishReason, GenerateOutput, TokenLogprob
from argosy.serving.delta import Delta, TokenText, ToolCallDelta
from argosy.serving.options import PreparedRequest, ToolParsing
from argosy.text.detokenizer import Detokenizer
from argosy.text.tokenizer import Tokenizer
from argosy.text.tool_calls import ToolCallParser


class Answer:
    """Turns the outputs of one engine stream into deltas. `finish_reason` is set by the last one."""

    __slots__ = ("_detokenizer", "_eos", "_index", "_keep_stop", "_tokenizer", "_tools", "finish_reason")

    def __init__(self, index: int, prepared: PreparedRequest, tokenizer: Tokenizer) -> None:
        self._index = index
        self._tokenizer = tokenizer
        self._eos = tokenizer.eos_token_ids
        self._keep_stop = prepared.options.text.include_stop
        text = prepared.options.text
        if prepared.tools is not None and prepared.tools.keeps_special_tokens:
            text = msgspec.structs.replace(text, skip_special_tokens=False)
        self._detokenizer = Detokenizer(
            tokenizer,
            text,
            continues_text=prepared.continues_text,
            min_tokens=prepared.requests[index].sampling.min_tokens,
        )
        self._tools = ToolCalls(prepared.tools) if prepared.tools else None
        self.finish_reason: str | None = None

    def push(self, output: GenerateOutput) -> Delta:
        """What this output adds to the answer. The token that ended it is counted, but not shown.

        Raises: EngineError if the engine says that it failed.
        """
        reason = output.finish_reason
        shown = output.token_ids
        if output.stop_token_id is not None and not self._keep_stop:
            shown = shown[:-1]
        text = self._detokenizer.push(shown, is_last=reason is not None)
        stop_reason: str | int | None = None
        if text.stop is not None:
            self.finish_reason, stop_reason = "stop", text.stop
        elif reason is not None:
            if reason is FinishReason.ERROR:
                raise EngineError("the engine failed while answering this request: try it again")
            self.finish_reason = reason.value
            stop_reason = None if output.stop_token_id in self._eos else output.stop_token_id
        logprobs = self._token_texts(output.logprobs[: len(shown)]) if output.logprobs else ()
        printable = text.text
        calls: tuple[ToolCallDelta, ...] = ()
        if self._tools is not None:
            printable, calls = self._tools.push(text.text, is_last=self.finish_reason is not None)
            self.finish_reason = self._tools.finish_reason(self.finish_reason)
        return Delta(
            choice=self._index,
            text=printable,
            token_ids=output.token_ids,
            logprobs=logprobs,
            tool_calls=calls,
            finish_reason=self.finish_reason,
            stop_reason=stop_reason,
        )

    def _token_texts(self, logprobs: tuple[TokenLogprob, ...]) -> tuple[TokenText, ...]:
        return tuple(
            self._token_text(
                entry.token_id,
                entry.logprob,
                tuple(self._token_text(token_id, value) for token_id, value in entry.top),
            )
            for entry in logprobs
        )

    def _token_text(self, token_id: int, logprob: float, top: tuple[TokenText, ...] = ()) -> TokenText:
        return TokenText(
            token_id=token_id,
            text=self._tokenizer.token_text(token_id),
            logprob=logprob,
            bytes_=self._tokenizer.token_bytes(token_id),
            top=top,
        )


class ToolCalls:
    """Finds tool calls in the text of one answer, or knows that all of it is the arguments of one."""

    __slots__ = ("_called", "_forced", "_max_calls", "_parser")

    def __init__(self, parsing: ToolParsing) -> None:
        self._forced = parsing.forced_name
        self._max_calls = parsing.max_calls
        self._called = 0
        self._parser = ToolCallParser(parsing.tool_format) if parsing.tool_format else None

    def push(self, text: str, *, is_last: bool) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """The printable part of `text`, and the pieces of tool calls in it."""
        if self._parser is None:
            return "", self._forced_call(text)
        found = self._parser.push(text, is_last=is_last)
        pieces = []
        for piece in found.calls:
            if self._max_calls is not None and piece.index >= self._max_calls:
                continue
            is_new = piece.index >= self._called
            self._called = max(self._called, piece.index + 1)
            pieces.append(
                ToolCallDelta(
                    index=piece.index,
                    id=_call_id() if is_new else None,
                    name=piece.name,
                    arguments=piece.arguments,
                )
            )
        return found.text, tuple(pieces)

    def finish_reason(self, reason: str | None) -> str | None:
        """`tool_calls` instead of `stop` if the model chose to call. Source: OpenAI, function calling."""
        return "tool_calls" if reason == "stop" and self._called and self._forced is None else reason

    def _forced_call(self, text: str) -> tuple[ToolCallDelta, ...]:
        if not self._called:
            self._called = 1
            return (ToolCallDelta(index=0, id=_call_id(), name=self._forced, arguments=text),)
        return (ToolCallDelta(index=0, arguments=text),) if text else ()


def _call_id() -> str:
    return f"call_{uuid4().hex[:24]}"
