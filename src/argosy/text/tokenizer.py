"""Text ⇄ token ids, for one model.

The work of merging is done by Hugging Face's `tokenizers`; this file adds what serving needs and it does not give:

- *Two readings of special tokens.* The same text means one thing in a template ("<|im_end|>" ends a turn) and
  another in a user's message (ten characters). `encode(parse_special=False)` uses a second tokenizer that shares
  the model of the first (no second copy of the vocabulary) and knows no special tokens, so that neither a flag nor
  a lock is toggled per call.
- *Decoding as bytes.* `decode` joins the bytes of the ids and reads them as UTF-8 once, with U+FFFD for what is not
  UTF-8. So decoding id by id and decoding at once can never disagree, which streaming depends on.

Read next: `vocabulary.py` (the facts), `gguf_tokenizer.py` and `hf_tokenizer.py` (where they come from).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tokenizers

from argosy.core.errors import InvalidRequest
from argosy.core.model import ModelFiles, ModelFormat
from argosy.text.byte_alphabet import entry_bytes
from argosy.text.gguf_tokenizer import read_gguf_tokenizer
from argosy.text.hf_tokenizer import read_hf_tokenizer
from argosy.text.plain_tokenizer import inside_text, without_reserved
from argosy.text.user_text import ReservedStrings, Segment
from argosy.text.vocabulary import Vocabulary

_SHORT_TEXT_CHARACTERS = 512


class _EntryBytes(dict[int, bytes]):
    """Token id → its bytes, worked out on first use: a start-up must not pay for 10^5 entries it may never print."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of

    def __missing__(self, token_id: int) -> bytes:
        self[token_id] = data = self._bytes_of(token_id)
        return data


class Tokenizer:
    """Encodes and decodes for one model. Immutable in use, safe to share between threads."""

    def __init__(self, engine: tokenizers.Tokenizer, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.vocab_size = vocabulary.size
        self.bos_token_id = vocabulary.bos_token_id
        self.eos_token_ids = vocabulary.eos_token_ids
        self.chat_template = vocabulary.chat_template
        self.special_tokens: Mapping[str, int] = vocabulary.special_tokens
        self.reserved_tokens: Mapping[str, int] = vocabulary.reserved_tokens
        self.special_ids = frozenset(vocabulary.special_tokens.values())
        self._reserved_ids = frozenset(vocabulary.reserved_tokens.values())
        self._parsing = engine
        self._plain = without_reserved(engine, vocabulary)
        self._plain_inside = inside_text(self._plain)
        self._added = {token.content: token for token in engine.get_added_tokens_decoder().values()}
        self.reserved_strings = ReservedStrings(vocabulary.reserved_tokens)
        self.entry_bytes: Mapping[int, bytes] = _EntryBytes(self._bytes_of)
        # What a token adds to printed text: nothing, if it is special.
        self.printed_bytes: Mapping[int, bytes] = _EntryBytes(self._printed_bytes_of)

    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = True) -> list[int]:
        """The ids of `text`. add_special_tokens: with what the model expects around a text (often a first token).

        parse_special: whether special tokens written out in the text become their ids; False for a user's words.
        """
        ids = _encode(self._parsing, text) if parse_special else self._encode_plain(text)
        if not add_special_tokens:
            return ids
        return [*self.vocabulary.prefix_ids, *ids, *self.vocabulary.suffix_ids]

    def encode_segments(self, segments: Sequence[Segment]) -> list[int]:
        """The ids of a text whose special tokens are known, as `encode` gives them; all else in it is plain text."""
        ids: list[int] = []
        for index, segment in enumerate(segments):
            if segment.is_special:
                ids.append(self.reserved_tokens[segment.text])
                continue
            text = segment.text
            if index and self._added[segments[index - 1].text].rstrip:
                text = text.lstrip()
            if index + 1 < len(segments) and self._added[segments[index + 1].text].lstrip:
                text = text.rstrip()
            ids += self._encode_plain(text, is_inside=index > 0)
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `token_ids`; bytes that are not UTF-8 become U+FFFD.

        Raises: InvalidRequest if an id is outside the vocabulary.
        """
        if token_ids and not (min(token_ids) >= 0 and max(token_ids) < self.vocab_size):
            wrong = next(token_id for token_id in token_ids if not 0 <= token_id < self.vocab_size)
            raise InvalidRequest(
                f"token id {wrong} is outside the vocabulary: send ids from 0 to {self.vocab_size - 1}",
                param="tokens",
            )
        table = self.printed_bytes if skip_special_tokens else self.entry_bytes
        data = b"".join([table[token_id] for token_id in token_ids])
        if self.vocabulary.is_space_prefixed:
            data = data.removeprefix(b" ")
        return data.decode("utf-8", "replace")

    def token_text(self, token_id: int) -> str:
        """The vocabulary's own spelling of a token ("Ġworld"); "" for an id without one."""
        return self._parsing.id_to_token(token_id) or "" if 0 <= token_id < self.vocab_size else ""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for, possibly part of a character."""
        return self.entry_bytes[token_id]

    def _encode_plain(self, text: str, *, is_inside: bool = False) -> list[int]:
        plain = self._plain_inside if is_inside else self._plain
        ids = _encode(plain, text)
        if self._reserved_ids.isdisjoint(ids):
            return ids
        # Some models (unigram, or byte pairs that ignore merges) still find a whole word in the vocabulary. Cut
        # every special string after its first character, so that none of the parts can be one.
        parts = _cut_inside(text, self.reserved_tokens)
        return [token_id for part in parts for token_id in _encode(plain, part)]

    def _bytes_of(self, token_id: int) -> bytes:
        text = self.token_text(token_id)
        if token_id in self._reserved_ids:
            return text.encode("utf-8", "replace")
        return entry_bytes(text, self.vocabulary.alphabet)

    def _printed_bytes_of(self, token_id: int) -> bytes:
        return b"" if token_id in self.special_ids else self.entry_bytes[token_id]


def load_tokenizer(files: ModelFiles) -> Tokenizer:
    """The tokenizer of a model on disk. Raises: SpecError naming the file and the field that is wrong."""
    if files.format is ModelFormat.GGUF:
        return Tokenizer(*read_gguf_tokenizer(_first_shard(files.weights)))
    return Tokenizer(*read_hf_tokenizer(files.root))


def _encode(engine: tokenizers.Tokenizer, text: str) -> list[int]:
    """The ids of a text. Unlike its `encode`, the library's batch call lets other threads run meanwhile (D-25).

    For a short text that costs more than it gives: an engine's thread may keep us from going on for 0.2 ms (measured),
    and the text itself takes a twentieth of it.
    """
    if len(text) <= _SHORT_TEXT_CHARACTERS:
        short: list[int] = engine.encode(text, add_special_tokens=False).ids
        return short
    ids: list[int] = engine.encode_batch_fast([text], add_special_tokens=False)[0].ids
    return ids


def _first_shard(weights: Sequence[Path]) -> Path:
    """The metadata of a split GGUF lie in its first part, `…-00001-of-0000N.gguf`, first by name."""
    return min(weights, key=lambda path: path.name)


def _cut_inside(text: str, strings: Mapping[str, int]) -> list[str]:
    pattern = "|".join(re.escape(string[0]) + f"(?={re.escape(string[1:])})" for string in strings if len(string) > 1)
    parts, start = [], 0
    for match in re.finditer(pattern, text):
        parts.append(text[start : match.end()])
        start = match.end()
    return [*parts, text[start:]]
