"""Is this JSON so far? One value, judged character by character as it streams in, in memory that does not grow.

Source: RFC 8259; strict, so that what passes is what `json.loads` accepts (without NaN and Infinity).
"""

from __future__ import annotations

import re
from enum import Enum, auto

MAX_DEPTH = 100
MAX_NUMBER_CHARACTERS = 400
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NUMBER_CHARACTERS = frozenset("0123456789+-.eE")
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_SPACE = frozenset(" \t\n\r")
_HEX = frozenset("0123456789abcdefABCDEF")


class Verdict(Enum):
    """What one more character makes of the value."""

    MORE = auto()  # a value so far
    DONE = auto()  # the value ends with this character
    DONE_BEFORE = auto()  # the value (a number) ended before this character, which is not part of it
    BAD = auto()  # no JSON value begins like this


class _State(Enum):
    VALUE = auto()
    FIRST_ITEM = auto()
    FIRST_KEY = auto()
    KEY = auto()
    COLON = auto()
    AFTER = auto()
    STRING = auto()
    ESCAPE = auto()
    HEX = auto()
    NUMBER = auto()
    LITERAL = auto()


class JsonScanner:
    """One JSON value. Feed it characters until it is DONE or BAD; it must not be fed after that."""

    def __init__(self) -> None:
        self._state = _State.VALUE
        self._open: list[str] = []  # "{" and "[" that are open
        self._is_key = False
        self._pending = ""  # the number so far, the rest of a literal, or the hex digits still to come

    def feed(self, character: str) -> Verdict:
        """Judge one more character."""
        state = self._state
        if state is _State.STRING:
            return self._in_string(character)
        if state is _State.ESCAPE or state is _State.HEX:
            return self._in_escape(character)
        if state is _State.NUMBER:
            return self._in_number(character)
        if state is _State.LITERAL:
            return self._in_literal(character)
        if character in _SPACE:
            return Verdict.MORE
        if state is _State.AFTER:
            return self._after_value(character)
        if state is _State.COLON:
            self._state = _State.VALUE
            return Verdict.MORE if character == ":" else Verdict.BAD
        if state is _State.KEY or state is _State.FIRST_KEY:
            return self._key(character)
        if state is _State.FIRST_ITEM and character == "]":
            return self._close()
        return self._value(character)

    def _value(self, character: str) -> Verdict:
        if character == '"':
            self._state, self._is_key = _State.STRING, False
        elif character in "{[":
            if len(self._open) >= MAX_DEPTH:
                return Verdict.BAD
            self._open.append(character)
            self._state = _State.FIRST_KEY if character == "{" else _State.FIRST_ITEM
        elif character in _LITERALS:
            self._state, self._pending = _State.LITERAL, _LITERALS[character][1:]
        elif character in "-0123456789":
            self._state, self._pending = _State.NUMBER, character
        else:
            return Verdict.BAD
        return Verdict.MORE

    def _key(self, character: str) -> Verdict:
        if character == '"':
            self._state, self._is_key = _State.STRING, True
            return Verdict.MORE
        return self._close() if character == "}" and self._state is _State.FIRST_KEY else Verdict.BAD

    def _after_value(self, character: str) -> Verdict:
        is_object = self._open[-1] == "{"
        if character == ",":
            self._state = _State.KEY if is_object else _State.VALUE
            return Verdict.MORE
        return self._close() if character == ("}" if is_object else "]") else Verdict.BAD

    def _in_string(self, character: str) -> Verdict:
        if character == '"':
            if self._is_key:
                self._state = _State.COLON
                return Verdict.MORE
            return self._ended()
        if character == "\\":
            self._state = _State.ESCAPE
        return Verdict.BAD if character < " " else Verdict.MORE

    def _in_escape(self, character: str) -> Verdict:
        if self._state is _State.HEX:
            self._pending = self._pending[1:]
            if not self._pending:
                self._state = _State.STRING
            return Verdict.MORE if character in _HEX else Verdict.BAD
        if character == "u":
            self._state, self._pending = _State.HEX, "0000"
            return Verdict.MORE
        self._state = _State.STRING
        return Verdict.MORE if character in '"\\/bfnrt' else Verdict.BAD

    def _in_literal(self, character: str) -> Verdict:
        if character != self._pending[0]:
            return Verdict.BAD
        self._pending = self._pending[1:]
        return Verdict.MORE if self._pending else self._ended()

    def _in_number(self, character: str) -> Verdict:
        if character in _NUMBER_CHARACTERS and len(self._pending) < MAX_NUMBER_CHARACTERS:
            self._pending += character
            return Verdict.MORE
        if not _NUMBER.fullmatch(self._pending):
            return Verdict.BAD
        if self._ended() is Verdict.DONE:
            return Verdict.DONE_BEFORE
        return self.feed(character)

    def _close(self) -> Verdict:
        self._open.pop()
        return self._ended()

    def _ended(self) -> Verdict:
        self._state = _State.AFTER
        return Verdict.MORE if self._open else Verdict.DONE
