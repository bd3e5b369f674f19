"""Prompts: synthetic words of a wanted token length, shared prefixes, or the lines of a file.

The words are short and common, so that nearly every vocabulary holds each as one token (with its leading blank);
what a chat template adds, and what is left of the error, is measured once per server from `usage.prompt_tokens`
and fitted by a line. Texts are a pure function of (seed, key): two servers asked with one seed see equal bytes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from argosy.core.errors import SpecError

_TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem "
    "hand part place case week company system program question work government number night point home water room "
    "mother area money story fact month lot right study book eye job word business issue side kind head house "
    "service friend father power hour game line end member law car city community name president team minute idea "
    "kid body information back parent face others level office door health person art war history party result "
    "change morning reason research girl moment air teacher force education foot boy age policy music market sense "
    "nation plan college interest death experience effect use class control field development role effort rate "
    "heart light voice wife police mind price report decision son view relationship town road arm difference value "
    "building action season society tax director position player record paper space ground form event official "
    "matter center couple site project activity star table need court oil situation cost industry figure street "
    "image phone data picture practice piece land product doctor wall worker news test movie north love support"
)
WORDS = tuple(dict.fromkeys(_TEXT.split()))
_DIGIT_BASE = 128  # two hundred words, of which 128 serve as the digits of a prompt's own number
_POOL_WORDS = 32_768
_MAX_LINE_TOKENS = 1_000_000


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How one server counts: tokens = overhead_tokens + tokens_per_word * words."""

    tokens_per_word: float = 1.0
    overhead_tokens: float = 0.0

    def words_for(self, tokens: int) -> int:
        """How many words make a prompt of `tokens` tokens; at least one."""
        return max(1, round((tokens - self.overhead_tokens) / self.tokens_per_word))


def fit_calibration(short: tuple[int, int], long: tuple[int, int]) -> Calibration:
    """The line through two measurements of (words, tokens)."""
    slope = (long[1] - short[1]) / (long[0] - short[0])
    if slope <= 0:
        return Calibration()
    return Calibration(tokens_per_word=slope, overhead_tokens=short[1] - slope * short[0])


class PromptWriter:
    """Writes texts of a wanted length. Different keys give texts that differ from their first words on."""

    def __init__(self, calibration: Calibration, seed: int) -> None:
        self.calibration = calibration
        self._seed = seed
        rng = random.Random(seed)
        pool = rng.choices(WORDS, k=_POOL_WORDS)
        self._pool = pool + pool

    def words(self, count: int, key: int) -> list[str]:
        """`count` words that no other key begins with."""
        number = (self._seed * 1_000_003 + key) % _DIGIT_BASE**3
        digits = (number % _DIGIT_BASE, number // _DIGIT_BASE % _DIGIT_BASE, number // _DIGIT_BASE**2)
        start = (number * 2_654_435_761) % _POOL_WORDS  # Knuth's multiplicative hash spreads neighbours
        found = [WORDS[digit] for digit in digits]
        while len(found) < count:
            piece = self._pool[start : start + count - len(found)]
            found += piece
            start = (start + len(piece)) % _POOL_WORDS
        return found[:count]

    def text(self, tokens: int, key: int, *, prefix_tokens: int = 0, prefix_key: int = 0) -> str:
        """A prompt of `tokens` tokens, of which the first `prefix_tokens` depend on `prefix_key` alone."""
        count = self.calibration.words_for(tokens)
        prefix = min(count, self.calibration.words_for(prefix_tokens)) if prefix_tokens else 0
        own = self.words(count - prefix, key) if count > prefix else []
        # Prefix keys count down from the top, so that they never meet the keys of requests.
        return " ".join((self.words(prefix, -1 - prefix_key) if prefix else []) + own)

    def text_of_blocks(self, tokens: int, blocks: Sequence[int], block_tokens: int) -> str:
        """A prompt of `tokens` tokens made of prefix blocks: equal block ids give equal text at equal places."""
        count = self.calibration.words_for(tokens)
        per_block = max(1, round(block_tokens / self.calibration.tokens_per_word))
        found: list[str] = []
        for block in blocks:
            if len(found) >= count:
                break
            found += self.words(per_block, block)
        if len(found) < count:
            found += self.words(count - len(found), blocks[-1] if blocks else 0)
        return " ".join(found[:count])


class PromptLine(msgspec.Struct, frozen=True):
    """One line of a prompt file: `prompt` or `messages`, and optionally its own `max_tokens`."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int | None = None


def read_prompts(path: Path) -> list[PromptLine]:
    """The lines of a JSONL prompt file. Raises: SpecError naming file and line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read prompts {path}: {error}; give a JSONL file") from error
    lines: list[PromptLine] = []
    for number, line in enumerate(raw.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line, type=PromptLine)
        except msgspec.DecodeError as error:
            raise SpecError(f"{path}:{number}: not a prompt: {error}") from error
        if (found.prompt is None) == (found.messages is None):
            raise SpecError(f"{path}:{number}: give either 'prompt' or 'messages', not both and not neither")
        if found.max_tokens is not None and not 1 <= found.max_tokens <= _MAX_LINE_TOKENS:
            raise SpecError(f"{path}:{number}: max_tokens is {found.max_tokens}: it must be 1 or more")
        lines.append(found)
    if not lines:
        raise SpecError(f"{path} holds no prompt: write one JSON object with 'prompt' or 'messages' a line")
    return lines
