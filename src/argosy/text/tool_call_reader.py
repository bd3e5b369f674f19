"""One tool call as models write it: `{"name": "…", "arguments": {…}}`, read while it streams in.

The name comes out once it is known, arguments character by character behind it, exactly as the model wrote them. What
turns out not to be a call before anything came out is given back whole as `raw`.
"""

from __future__ import annotations

import json
from enum import Enum, auto

from argosy.text.json_scanner import JsonScanner, Verdict

MAX_HELD_CHARACTERS = 64 * 1024
_ARGUMENT_KEYS = ("arguments", "parameters")
_KNOWN_KEYS = {"name", "type", "id", "function", *_ARGUMENT_KEYS}
_SPACE = frozenset(" \t\n\r")


class _Expect(Enum):
    OPEN = auto()
    FIRST_KEY = auto()
    KEY = auto()
    COLON = auto()
    VALUE = auto()
    COMMA = auto()


_PARTS = frozenset({_Expect.FIRST_KEY, _Expect.KEY, _Expect.VALUE})


class CallReader:
    """Reads one call. After DONE or BAD it must not be fed.

    name: once known. has_started: name and arguments come out from here on, and stay out.
    """

    def __init__(self, *, name: str | None = None) -> None:
        """name: known already, and only the arguments object follows."""
        self._raw: list[str] = []
        self.name = name
        self.has_started = False
        self.is_announced = False  # for the one who puts pieces out: the name is out
        self._new_arguments: list[str] = []
        self._arguments: str | None = None  # complete, and waiting for the name
        self._is_bare = name is not None
        self._expect = _Expect.VALUE if self._is_bare else _Expect.OPEN
        self._scanner = JsonScanner()
        self._part: list[str] = []  # the key or value being read, unless its characters go out at once
        self._is_in_part = False
        self._key = _ARGUMENT_KEYS[0] if self._is_bare else ""
        self._is_streaming = False

    def feed(self, character: str) -> Verdict:
        """Read one more character. DONE: the call is complete; BAD: this is no call, or no more."""
        if not self.has_started:
            self._raw.append(character)
            if len(self._raw) > MAX_HELD_CHARACTERS:
                return Verdict.BAD
        if self._expect in _PARTS and (self._is_in_part or character not in _SPACE):
            return self._read_part(character)
        return Verdict.MORE if character in _SPACE else self._punctuation(character)

    @property
    def raw(self) -> str:
        """Everything read, as long as nothing has come out; then ""."""
        return "" if self.has_started else "".join(self._raw)

    def take_arguments(self) -> str:
        """The arguments read since the last time."""
        taken = "".join(self._new_arguments)
        self._new_arguments.clear()
        return taken

    def _punctuation(self, character: str) -> Verdict:
        after = {
            (_Expect.OPEN, "{"): _Expect.FIRST_KEY,
            (_Expect.COLON, ":"): _Expect.VALUE,
            (_Expect.COMMA, ","): _Expect.KEY,
        }.get((self._expect, character))
        if after is not None:
            self._expect = after
            return Verdict.MORE
        return self._end() if (self._expect, character) == (_Expect.COMMA, "}") else Verdict.BAD

    def _read_part(self, character: str) -> Verdict:
        is_key = self._expect is not _Expect.VALUE
        if not self._is_in_part:
            if is_key and character != '"':
                return Verdict.BAD
            self._is_in_part = True
            self._begin_value(character)
        verdict = self._scanner.feed(character)
        if verdict is Verdict.BAD:
            return verdict
        if verdict is not Verdict.DONE_BEFORE:
            (self._new_arguments if self._is_streaming else self._part).append(character)
        if verdict is Verdict.MORE:
            return verdict
        ended = self._key_ended() if is_key else self._value_ended()
        return self._punctuation_after_number(character) if verdict is Verdict.DONE_BEFORE else ended

    def _punctuation_after_number(self, character: str) -> Verdict:
        return Verdict.MORE if character in _SPACE else self._punctuation(character)

    def _begin_value(self, character: str) -> None:
        if self._expect is _Expect.VALUE and self._key in _ARGUMENT_KEYS and character == "{" and self.name:
            self._is_streaming = not self.has_started
            self.has_started = True

    def _key_ended(self) -> Verdict:
        self._key = str(json.loads("".join(self._part)))
        self._expect = _Expect.COLON
        self._reset_part()
        return Verdict.MORE if self._key in _KNOWN_KEYS or self.has_started else Verdict.BAD

    def _value_ended(self) -> Verdict:
        if self._is_streaming:
            self._is_streaming = False
            if self._is_bare:
                return Verdict.DONE
        elif not self.has_started and not self._keep("".join(self._part)):
            return Verdict.BAD
        self._expect = _Expect.COMMA
        self._reset_part()
        return Verdict.MORE

    def _keep(self, text: str) -> bool:
        """Note the value that was read under `_key`. False if no call has such a value there."""
        value = json.loads(text)
        if self._key == "function" and isinstance(value, dict):
            if "arguments" in value:
                self._arguments = _as_arguments(json.dumps(value["arguments"], ensure_ascii=False))
            value = value.get("name")
        if self._key in ("name", "function"):
            self.name = value if isinstance(value, str) and _is_text(value) else None
            return bool(self.name)
        if self._key in _ARGUMENT_KEYS:
            self._arguments = _as_arguments(text)
        return True

    def _reset_part(self) -> None:
        self._part = []
        self._is_in_part = False
        self._scanner = JsonScanner()

    def _end(self) -> Verdict:
        if not self.name:
            return Verdict.BAD
        if not self.has_started:
            self.has_started = True
            self._new_arguments.append(self._arguments or "{}")
        return Verdict.DONE


def _as_arguments(text: str) -> str:
    """Arguments that are not an object: JSON inside a string is taken out of it, null is no arguments."""
    value = json.loads(text)
    if isinstance(value, str) and _is_text(value):
        return value
    return "{}" if value is None else text


def _is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8: JSON can spell half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in value)
