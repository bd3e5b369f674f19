"""Finding tool calls in what a model says, while it says it.

Models write calls as text in one of a few formats; clients want them as structured pieces. The same parser serves
streamed and whole answers (a whole answer is one push), and its result does not depend on how the text was cut.

    HERMES   …text… <tool_call>{"name": …, "arguments": {…}}</tool_call> …      Hermes, Qwen, SmolLM
    LLAMA3   {"name": …, "parameters": {…}}; {…}      the whole answer, possibly behind <|python_tag|>
    MISTRAL  …text… [TOOL_CALLS][{"name": …, "arguments": {…}}, …]  or  [TOOL_CALLS]name[ARGS]{…}

Nothing a model says is lost: what begins like a call and is none comes out as text. Only the marks of real calls, and
white space beside them, are not text. When JSON breaks inside arguments that are already out, the rest of it is text.
What is held back is bounded: the beginning of a mark, a little white space, the head of a call.

The parser is a state machine; a state is a method that takes what is unread and returns what it leaves to the next.

Source: the chat templates of these families; vLLM's tool parsers for what models really write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum

import msgspec

from argosy.text.json_scanner import Verdict
from argosy.text.tool_call_reader import CallReader

MAX_SPACE_CHARACTERS = 256
MAX_HEAD_CHARACTERS = 512
_SPACE = " \t\n\r"
_CLOSER = "</tool_call>"
_PYTHON_TAG = "<|python_tag|>"
# Mistral's second form: the function's name, perhaps an id, then the arguments.
_NAMED_HEAD = re.compile(r"\s*([A-Za-z0-9_.-]{1,256})(?:\[CALL_ID\][A-Za-z0-9]{1,64})?(?:\[ARGS\])?\s*")
_NAMED_HEAD_CHARACTERS = re.compile(r"[A-Za-z0-9_.\[\]\s-]")


class ToolFormat(StrEnum):
    """How a model writes tool calls."""

    HERMES = "hermes"
    LLAMA3 = "llama3"
    MISTRAL = "mistral"

    @property
    def needs_special_tokens(self) -> bool:
        """Whether the marks are special tokens, which the detokenizer must not skip."""
        return self is not ToolFormat.HERMES


class ToolCallPiece(msgspec.Struct, frozen=True):
    """A piece of call number `index`. name: with its first piece only. arguments: a piece of their JSON."""

    index: int
    name: str | None = None
    arguments: str = ""


class ToolDelta(msgspec.Struct, frozen=True):
    """What new text turned out to be: text for the reader, and pieces of calls."""

    text: str = ""
    calls: tuple[ToolCallPiece, ...] = ()


def detect_tool_format(chat_template_source: str) -> ToolFormat | None:
    """The format that a model's chat template teaches it; None if it teaches none."""
    if "<tool_call>" in chat_template_source:
        return ToolFormat.HERMES
    if "[TOOL_CALLS]" in chat_template_source:
        return ToolFormat.MISTRAL
    is_llama = "<|python_tag|>" in chat_template_source or '"parameters": ' in chat_template_source
    return ToolFormat.LLAMA3 if is_llama and "tools" in chat_template_source else None


_State = Callable[[str], str]


class ToolCallParser:
    """Reads one answer. Not shared between answers."""

    def __init__(self, format_: ToolFormat) -> None:
        self._format = format_
        self._opener = {ToolFormat.HERMES: "<tool_call>", ToolFormat.MISTRAL: "[TOOL_CALLS]"}.get(format_, "")
        self._state: _State = self._in_text if self._opener else self._at_start
        self._held = ""  # undecided: read again with what follows
        self._marks = ""  # structure before the call that is being read; text after all, if it is none
        self._reader: CallReader | None = None
        self._num_calls = 0
        self._is_array = False
        self._text: list[str] = []
        self._calls: list[ToolCallPiece] = []

    def push(self, text: str, *, is_last: bool = False) -> ToolDelta:
        """What `text` adds. is_last: the answer is over, nothing is held back any more."""
        rest = self._held + text
        self._held = ""
        while rest:
            rest = self._state(rest)
        self._take_pieces()
        if is_last:
            self._finish()
        delta = ToolDelta("".join(self._text), tuple(self._calls))
        self._text.clear()
        self._calls.clear()
        return delta

    def _finish(self) -> None:
        """The answer ends here: what is undecided is text, unless it is the beginning of a mark after a call."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._text.append(self._marks + reader.raw if not reader.has_started else "")
        elif self._state != self._after_call:
            self._text.append(self._marks + self._held)
        self._marks = self._held = ""
        self._state = self._in_text

    def _in_text(self, rest: str) -> str:
        """Text, up to the mark of a call."""
        at = rest.find(self._opener) if self._opener else -1
        end = at if at >= 0 else len(rest) - _unfinished_at_end(rest, self._opener)
        if self._opener:
            end -= min(end - len(rest[:end].rstrip(_SPACE)), MAX_SPACE_CHARACTERS)
        self._text.append(rest[:end])
        if at < 0:
            self._held = rest[end:]
            return ""
        self._marks = rest[end : at + len(self._opener)]
        self._is_array = False
        self._state = self._before_call
        return rest[at + len(self._opener) :]

    def _at_start(self, rest: str) -> str:
        """The beginning of an answer that is a call as a whole, or none."""
        stripped = rest.lstrip(_SPACE)
        if stripped.startswith(("{", _PYTHON_TAG)):
            start = stripped.removeprefix(_PYTHON_TAG)
            self._marks = rest[: len(rest) - len(start)]
            self._state = self._before_call
            return start
        if _PYTHON_TAG.startswith(stripped) and len(rest) <= MAX_SPACE_CHARACTERS:
            self._held = rest
            return ""
        self._state = self._in_text
        return rest

    def _before_call(self, rest: str) -> str:
        """Between a mark and the call."""
        start = rest.lstrip(_SPACE)
        self._marks += rest[: len(rest) - len(start)]
        if len(self._marks) > MAX_HEAD_CHARACTERS:
            return self._not_a_call(start)
        if not start:
            return ""
        if start[0] == "{":
            self._reader = CallReader()
            self._state = self._in_call
            return start
        if self._format is ToolFormat.MISTRAL and not self._is_array:
            if start[0] == "[":
                self._is_array = True
                self._marks += "["
                return start[1:]
            self._state = self._in_named_head
            return start
        return self._not_a_call(start)

    def _in_named_head(self, rest: str) -> str:
        """Mistral's `name[ARGS]`, up to the brace."""
        for position, character in enumerate(rest):
            if character == "{":
                head = _NAMED_HEAD.fullmatch(self._marks[self._marks.index(self._opener) + len(self._opener) :])
                if head is None:
                    return self._not_a_call(rest[position:])
                self._reader = CallReader(name=head[1])
                self._state = self._in_call
                return rest[position:]
            if not _NAMED_HEAD_CHARACTERS.match(character) or len(self._marks) > MAX_HEAD_CHARACTERS:
                return self._not_a_call(rest[position:])
            self._marks += character
        return ""

    def _in_call(self, rest: str) -> str:
        reader = self._reader
        assert reader is not None, "this state is entered with a reader"
        for position, character in enumerate(rest):
            verdict = reader.feed(character)
            if verdict is Verdict.DONE:
                self._take_pieces()
                self._reader, self._marks = None, ""
                self._state = self._after_call
                return rest[position + 1 :]
            if verdict is Verdict.BAD:
                self._take_pieces()
                self._reader = None
                # The reader has noted the character that was wrong; it is read again, as text.
                self._marks = "" if reader.has_started else self._marks + reader.raw[:-1]
                return self._not_a_call(rest[position:])
        return ""

    def _after_call(self, rest: str) -> str:
        """Behind a call: its closing mark, or the separator before the next."""
        start = rest.lstrip(_SPACE)
        if self._format is ToolFormat.HERMES:
            if _CLOSER.startswith(start):
                self._held = start
                if start != _CLOSER:
                    return ""
            self._held = ""
            self._state = self._after_marks
            return start.removeprefix(_CLOSER)
        if not start:
            return ""
        if self._is_array and start[0] == "]":
            self._state = self._after_marks
            return start[1:]
        if start[0] == "," if self._is_array else (start[0] in ";," and self._format is ToolFormat.LLAMA3):
            self._marks = start[0]
            self._state = self._before_call
            return start[1:]
        self._state = self._after_marks
        return start

    def _after_marks(self, rest: str) -> str:
        """White space behind a call is not text."""
        start = rest.lstrip(_SPACE)
        if start:
            self._state = self._in_text
        return start

    def _not_a_call(self, rest: str) -> str:
        """What was read as structure is text; go on with `rest` as text."""
        self._text.append(self._marks)
        self._marks = ""
        self._state = self._in_text
        return rest

    def _take_pieces(self) -> None:
        """Put out what the reader has ready."""
        reader = self._reader
        if reader is None or not reader.has_started:
            return
        arguments = reader.take_arguments()
        if not reader.is_announced:
            reader.is_announced = True
            self._calls.append(ToolCallPiece(self._num_calls, reader.name, arguments))
            self._num_calls += 1
        elif arguments:
            self._calls.append(ToolCallPiece(self._num_calls - 1, None, arguments))


def _unfinished_at_end(text: str, mark: str) -> int:
    """How many characters at the end of `text` could begin `mark`."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if mark.startswith(text[-length:]):
            return length
    return 0
