"""Finding stop strings in text that arrives in pieces.

One small automaton per stop string (Knuth, Morris, Pratt 1977) remembers how much of it the text so far ends with.
So a stop string may lie across any number of pieces, each character is looked at once, and what must be held back
is known without searching: the longest beginning of a stop string that the text ends with.

The answer does not depend on how the text was cut: the stop string that is *complete* first wins, and of two that
are complete at the same character the longer, which began earlier.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Feeds on text, lets through what cannot be part of a stop string, ends at the first stop string."""

    def __init__(self, stops: Sequence[str], *, include_stop: bool) -> None:
        self._stops = sorted(set(stops) - {""}, key=len, reverse=True)
        self._fallbacks = [_fallbacks(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)
        self._first_characters = {stop[0] for stop in self._stops}
        self._include_stop = include_stop
        self._held = ""

    def push(self, text: str, *, is_last: bool, may_stop: bool = True) -> tuple[str, str | None]:
        """The text that is now certain, and the stop string found in it, if any.

        is_last: nothing is held back. may_stop: False lets a stop string that is complete in `text` pass.
        """
        if not self._held and self._first_characters.isdisjoint(text):
            return text, None
        for position, character in enumerate(text):
            stop = self._advance(character)
            if stop is not None and may_stop:
                seen = self._held + text[: position + 1]
                self._held = ""
                return (seen if self._include_stop else seen[: len(seen) - len(stop)]), stop
        text = self._held + text
        num_held = 0 if is_last else max(self._matched)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held], None

    def _advance(self, character: str) -> str | None:
        found = None
        for index, stop in enumerate(self._stops):
            matched = self._matched[index]
            while matched and stop[matched] != character:
                matched = self._fallbacks[index][matched - 1]
            if stop[matched] == character:
                matched += 1
            if matched == len(stop):
                matched = self._fallbacks[index][matched - 1]
                found = found or stop
            self._matched[index] = matched
        return found


def _fallbacks(stop: str) -> list[int]:
    """For each beginning of `stop`, the length of its longest proper beginning that it also ends with."""
    lengths = [0] * len(stop)
    matched = 0
    for position in range(1, len(stop)):
        while matched and stop[position] != stop[matched]:
            matched = lengths[matched - 1]
        if stop[position] == stop[matched]:
            matched += 1
        lengths[position] = matched
    return lengths
