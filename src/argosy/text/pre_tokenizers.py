"""`tokenizer.ggml.pre` → how text is cut into words before byte-pair merging.

GGUF names the pre-tokenizer instead of carrying it, so the names are a table here as they are in llama.cpp. Each
row is a list of regular expressions, applied one after the other: what a pattern matches becomes a word of its own,
what lies between goes on to the next pattern. A wrong row gives ids that look right and are not those the model
was trained on, therefore every row is compared with llama.cpp id by id (tests/text/test_pre_tokenizers.py).

A name that is not in the table is refused: guessing would serve a subtly worse model without saying so.

Source: llama.cpp, src/llama-vocab.cpp (`llm_tokenizer_bpe`), and the tokenizer.json of each family.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}" + _CASED_TAIL
_ENDINGS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDINGS}"
    r"|\p{N}{1,3}" + _CASED_TAIL
)
_DEEPSEEK3_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"


class PreTokenizerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. ignore_merges: a word that is an entry is that entry, whatever the merges say."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    adds_bos: bool = False
    composes: bool = False  # NFC first; llama.cpp leaves it out, the families' own tokenizers do it


_ROW_GPT2 = PreTokenizerRow(patterns=(_GPT2,))
_ROW_DIGITS = PreTokenizerRow(patterns=(r"\p{N}", _GPT2))
_ROW_LLAMA3 = PreTokenizerRow(patterns=(_LLAMA3,), ignore_merges=True, adds_bos=True)
_ROW_LLAMA3_PLAIN = PreTokenizerRow(patterns=(_LLAMA3,))
_ROW_QWEN2 = PreTokenizerRow(patterns=(_QWEN2,), composes=True)

PRE_TOKENIZERS: Mapping[str, PreTokenizerRow] = {
    "gpt-2": _ROW_GPT2,
    "phi-2": _ROW_GPT2,
    "olmo": _ROW_GPT2,
    "mpt": _ROW_GPT2,
    "roberta-bpe": _ROW_GPT2,
    "smollm": _ROW_DIGITS,
    "starcoder": _ROW_DIGITS,
    "refact": _ROW_DIGITS,
    "command-r": _ROW_DIGITS,
    "codeshell": _ROW_DIGITS,
    "exaone": _ROW_DIGITS,
    "llama-bpe": _ROW_LLAMA3,
    "llama3": _ROW_LLAMA3,
    "llama-v3": _ROW_LLAMA3,
    "falcon3": _ROW_LLAMA3,
    "dbrx": _ROW_LLAMA3_PLAIN,
    "smaug-bpe": _ROW_LLAMA3_PLAIN,
    "chatglm-bpe": _ROW_LLAMA3_PLAIN,
    "glm4": _ROW_LLAMA3_PLAIN,
    "qwen2": _ROW_QWEN2,
    "deepseek-r1-qwen": PreTokenizerRow(patterns=(_QWEN2,)),
    "stablelm2": PreTokenizerRow(patterns=(_QWEN2,)),
    "tekken": PreTokenizerRow(patterns=(_TEKKEN,), ignore_merges=True, adds_bos=True),
    "gpt-4o": PreTokenizerRow(patterns=(_GPT4O,), ignore_merges=True),
    "llama4": PreTokenizerRow(patterns=(_GPT4O,), ignore_merges=True),
    "deepseek-v3": PreTokenizerRow(patterns=(r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK3_WORDS)),
    "falcon": PreTokenizerRow(patterns=(_PUNCTUATION, _GPT2, r"[0-9][0-9][0-9]")),
}


def build_pre_tokenizer(row: PreTokenizerRow) -> PreTokenizer:
    """The row as a `tokenizers` pre-tokenizer that ends in the byte-level alphabet."""
    if row.patterns == _ROW_GPT2.patterns:
        return ByteLevel(add_prefix_space=False)
    if row.patterns == _ROW_DIGITS.patterns:  # natively coded and twice as fast as the expressions
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    cuts: list[PreTokenizer] = [Split(Regex(pattern), behavior="isolated") for pattern in row.patterns]
    return Sequence([*cuts, ByteLevel(add_prefix_space=False, use_regex=False)])
