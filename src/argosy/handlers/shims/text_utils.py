"""Splitting English text into words, and words into runs of words: what torchtext had, for text handlers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

# In this order. Source: torchtext's basic_english normalisation.
_STEPS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\'", " '  "),
        (r"\"", ""),
        (r"\.", " . "),
        (r"<br \/>", " "),
        (r",", " , "),
        (r"\(", " ( "),
        (r"\)", " ) "),
        (r"\!", " ! "),
        (r"\?", " ? "),
        (r"\;", " "),
        (r"\:", " "),
        (r"\s+", " "),
    )
)


def ngrams_iterator(token_list: Sequence[str], ngrams: int) -> Iterator[str]:
    """The words, then every run of two, then of three, up to `ngrams`."""
    yield from token_list
    for length in range(2, ngrams + 1):
        for start in range(len(token_list) - length + 1):
            yield " ".join(token_list[start : start + length])


def get_tokenizer(
    tokenizer: str | Callable[[str], list[str]] | None, language: str = "en"
) -> Callable[[str], list[str]]:
    """A function from text to words: `basic_english`, None for splitting at blanks, or the function given."""
    if tokenizer is None:
        return str.split
    if callable(tokenizer):
        return tokenizer
    if tokenizer != "basic_english" or language != "en":
        raise ValueError(f"no tokenizer {tokenizer!r} for {language!r}: there is 'basic_english' for 'en'")
    return _basic_english


def _basic_english(line: str) -> list[str]:
    line = line.lower()
    for pattern, replacement in _STEPS:
        line = pattern.sub(replacement, line)
    return line.split()
