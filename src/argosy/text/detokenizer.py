"""A stream of token ids → printable text, piece by piece.

Three things make this more than a table look-up:

- *A character may span tokens.* Ids become bytes, and bytes go through an incremental UTF-8 decoder that keeps an
  unfinished character until the rest arrives; what can never become one turns into U+FFFD, exactly as decoding the
  whole answer at once would give it. The same path serves byte-level and byte-fallback vocabularies.
- *A stop string may span tokens.* Text that could be the beginning of one is held back (`stop_strings.py`).
- *A space at the front is not text.* Sentencepiece vocabularies begin every word with a space; at the beginning of
  a text it is taken off, as `Tokenizer.decode` does, unless the answer continues a text.

The law, tested for random cuts: the pieces joined are `tokenizer.decode(all ids)`, up to the first stop string.
The cost of a token is a few look-ups, whatever the length of the answer.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

import msgspec

from argosy.core.sampling import TextParams
from argosy.text.stop_strings import StopStrings
from argosy.text.tokenizer import Tokenizer

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """New printable text, possibly none. stop: the stop string that ended the text; then generation must end."""

    text: str
    stop: str | None = None


_NOTHING = TextDelta("")


class Detokenizer:
    """The text of one answer. Not shared between answers."""

    def __init__(
        self, tokenizer: Tokenizer, params: TextParams, *, continues_text: bool = False, min_tokens: int = 0
    ) -> None:
        """continues_text: the answer goes on in the middle of a text, so a space at its front is part of it.

        min_tokens: a stop string that is complete within so many tokens ends nothing. Source: vLLM, same name.
        """
        self._table = tokenizer.printed_bytes if params.skip_special_tokens else tokenizer.entry_bytes
        self._decode = _new_utf8_decoder("replace").decode
        self._drops_space = tokenizer.vocabulary.is_space_prefixed and not continues_text
        self._stops = StopStrings(params.stop, include_stop=params.include_stop) if any(params.stop) else None
        self._unstoppable = min_tokens if self._stops is not None else 0
        self._stop: str | None = None
        self._is_over = False

    def push(self, token_ids: Sequence[int], *, is_last: bool = False) -> TextDelta:
        """The text that these tokens complete. is_last: no tokens follow, so nothing is kept back any more.

        After a stop string, or after the last push, there is no more text.
        """
        if self._is_over:
            return _NOTHING if self._stop is None else TextDelta("", self._stop)
        early = ""
        if self._unstoppable and self._stops is not None:
            passed, token_ids = token_ids[: self._unstoppable], token_ids[self._unstoppable :]
            self._unstoppable -= len(passed)
            early, _ = self._stops.push(self._text(passed), is_last=False, may_stop=False)
        text = self._text(token_ids, is_last=is_last)
        self._is_over = is_last
        if self._stops is None:
            return TextDelta(text) if text else _NOTHING
        text, self._stop = self._stops.push(text, is_last=is_last)
        text = early + text
        if self._stop is not None:
            self._is_over = True
            return TextDelta(text, self._stop)
        return TextDelta(text) if text else _NOTHING

    def _text(self, token_ids: Sequence[int], *, is_last: bool = False) -> str:
        table = self._table
        data = b"".join([table[token_id] for token_id in token_ids])
        if self._drops_space and data:
            data = data.removeprefix(b" ")
            self._drops_space = False
        return self._decode(data, is_last)
