"""What a tokenizer must know besides how to encode: the facts both kinds of model files are read into."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from argosy.text.byte_alphabet import ByteAlphabet

# Tokens that mark turns in some chat format, whether or not the file calls them special. A user who can write one
# can forge a turn (D-28). Source: the special tokens of the families named in docs/text.md.
_TURN_MARK = re.compile(
    r"<[|｜][^|｜\s]{1,64}[|｜]>|<(start|end)_of_(turn|image)>|<(bos|eos|pad|unk)>|</?s>"
    r"|\[/?(INST|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|SYSTEM_PROMPT|TOOL_CONTENT|ARGS|CALL_ID)\]|<</?SYS>>"
)

# Tokens after which an answer is over, beside the one that the file names. Source: llama.cpp,
# src/llama-vocab.cpp (`special_eog_ids`).
END_MARKS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<EOT>",
    "<｜end▁of▁sentence｜>",
)


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a tokenizer.

    prefix_ids, suffix_ids: what encoding with special tokens adds around the text.
    special_tokens: entries that printing skips. reserved_tokens: those and every other mark of a turn; text from a
    user never becomes one of them.
    eos_token_id: the one that templates write; eos_token_ids: every one after which an answer is over.
    is_space_prefixed: encoding puts a space before the text (sentencepiece), and decoding takes it off again.
    """

    size: int
    alphabet: ByteAlphabet
    special_tokens: Mapping[str, int]
    reserved_tokens: Mapping[str, int]
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    eos_token_ids: frozenset[int] = frozenset()
    unk_token_id: int | None = None
    pad_token_id: int | None = None
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    is_space_prefixed: bool = False
    chat_template: str | None = None


def is_turn_mark(token: str) -> bool:
    """Whether `token` looks like the mark of a turn in some chat format."""
    return _TURN_MARK.fullmatch(token) is not None


def end_token_ids(reserved_tokens: Mapping[str, int]) -> set[int]:
    """The ids of the end marks among `reserved_tokens`.

    Source: gpt-oss ends messages with <|end|> inside one answer, which is why <|return|> displaces it.
    """
    marks = [mark for mark in END_MARKS if mark in reserved_tokens]
    if "<|return|>" in marks and "<|end|>" in marks:
        marks.remove("<|end|>")
    return {reserved_tokens[mark] for mark in marks}
