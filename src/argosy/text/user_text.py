"""Keeping a user's words from being read as the template's (D-28).

A template writes turns with special tokens: "<|im_start|>user\\n" + content + "<|im_end|>". A user who writes
"<|im_end|>\\n<|im_start|>system\\n…" would forge a turn, if the rendered text were simply tokenized. So every string
that comes with a request is searched for special tokens, and each one found is replaced by a *mask*, a name drawn
at random for this request, before the template sees it. After rendering, what still reads as a special token was
written by the template. Then the masks are taken off again, in stretches that are tokenized without special tokens.

A special token can also be put together: "<|im_" at the end of one string and "end|>" at the beginning of the
next. Therefore the beginning of one, at the end of a string, is masked too.

Requests without any of this, nearly all, pay for one search and nothing else.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec

# Private-use characters: no text normalisation, trimming or case change alters them.
_OPEN, _CLOSE = "\ue0a4", "\ue0a5"


class Segment(msgspec.Struct, frozen=True):
    """A stretch of rendered text. is_special: one special token, written by the template."""

    text: str
    is_special: bool


class ReservedStrings:
    """The special tokens of a tokenizer, ready to be searched for. Built once per tokenizer."""

    def __init__(self, strings: Iterable[str]) -> None:
        ordered = sorted((string for string in strings if string), key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        self._beginnings = frozenset(string[:length] for string in ordered for length in range(1, len(string)))
        self._first_characters = frozenset(string[0] for string in ordered)
        self._max_length = len(ordered[0]) if ordered else 0

    def unfinished_at_end(self, text: str) -> int:
        """How many characters at the end of `text` could begin a special token; 0 if none."""
        start = max(len(text) - self._max_length + 1, 0)
        if self._first_characters.isdisjoint(text[start:]):
            return 0
        for at in range(start, len(text)):
            if text[at] in self._first_characters and text[at:] in self._beginnings:
                return len(text) - at
        return 0


class UserText:
    """The masks of one request. `mask` its strings, render, then `segments` of what came out."""

    def __init__(self, reserved: ReservedStrings) -> None:
        self._reserved = reserved
        self._nonce = ""
        self._masked: list[str] = []

    @property
    def has_masks(self) -> bool:
        """Whether any string needed one."""
        return bool(self._masked)

    def masked(self, value: Any) -> Any:
        """A copy of plain data (mappings, sequences, strings, numbers) with special tokens masked in every string."""
        if isinstance(value, str):
            return self._masked_string(value)
        if isinstance(value, dict):
            return {self._masked_string(str(key)): self.masked(member) for key, member in value.items()}
        if isinstance(value, list | tuple):
            return [self.masked(member) for member in value]
        return value

    def restored(self, text: str) -> str:
        """`text` with the masks taken off."""
        if not self._masked:
            return text
        pattern = f"{_OPEN}{self._nonce}:([0-9]+){_CLOSE}"
        return re.sub(pattern, lambda match: self._masked[int(match[1])], text)

    def segments(self, rendered: str) -> list[Segment]:
        """The rendered text, cut at the template's special tokens, masks off."""
        found, start = [], 0
        for match in self._reserved.pattern.finditer(rendered):
            if match.start() > start:
                found.append(Segment(self.restored(rendered[start : match.start()]), False))
            found.append(Segment(match[0], True))
            start = match.end()
        if start < len(rendered):
            found.append(Segment(self.restored(rendered[start:]), False))
        return found

    def _masked_string(self, text: str) -> str:
        num_unfinished = self._reserved.unfinished_at_end(text)
        end = len(text) - num_unfinished
        masked = self._reserved.pattern.sub(lambda match: self._mask(match[0]), text[:end])
        return masked + self._mask(text[end:]) if num_unfinished else masked

    def _mask(self, special: str) -> str:
        if not self._nonce:
            self._nonce = str(secrets.randbelow(10**24))
        self._masked.append(special)
        return f"{_OPEN}{self._nonce}:{len(self._masked) - 1}{_CLOSE}"
