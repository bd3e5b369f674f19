"""What the small T5 learns: which numbers, in which languages, asked in which words.

Pure functions over integers and strings. They need neither torch nor num2words, so the tests read them everywhere.

Why the held-out set is a hash: a number is held out because of its own digits, not because of a random state. Every
run, every language and every reader gets the same answer from `is_held_out`, so a number that is measured was never
seen in training, in any direction. Numbers below 100 are all trained on: they are the lexicon. "Forty-two" cannot be
worked out from other numbers, "four hundred and forty-two" can.
"""

from __future__ import annotations

import itertools
import random
import zlib

LANGUAGES = {"en": "English", "fr": "French", "de": "German"}
"""Language code to the name the prompt uses (the GKE tutorial's handler sends these names)."""

DIRECTIONS = (("en", "fr"), ("fr", "en"), ("en", "de"), ("de", "en"), ("fr", "de"), ("de", "fr"))
"""Source and target language of each direction that is trained and measured."""

LEXICON_END = 100
"""Numbers below this are words of their own and all of them are trained on."""

RANGE_END = 1_000_000
"""Numbers stop before this: a million brings new words and plurals in French and German, and nothing new to serve."""

BANDS = ((0, 100), (100, 1_000), (1_000, 10_000), (10_000, 100_000), (100_000, RANGE_END))
"""Half-open ranges, one per number of digits (one and two digits together)."""

BAND_WEIGHTS = (2, 4, 4, 4, 6)
"""How often training draws from each band. Even draws over the range would show three digits once in a thousand."""

HELD_OUT_SHARE = 10
"""One number in this many is kept out of training, from LEXICON_END on."""


def prompt(source: str, target: str, words: str) -> str:
    """The prompt for one translation, e.g. `translate English to French: forty-two`.

    Raises: KeyError when a language code is not in LANGUAGES.
    Source: the handler of the GKE tutorial "Serve scalable LLMs/T5 with TorchServe"; T5's own task prefix.
    """
    return f"translate {LANGUAGES[source]} to {LANGUAGES[target]}: {words}"


def is_held_out(number: int) -> bool:
    """Whether a number is kept for measurement only."""
    return number >= LEXICON_END and zlib.crc32(str(number).encode()) % HELD_OUT_SHARE == 0


def training_numbers(per_band: int, seed: int) -> list[list[int]]:
    """At most `per_band` training numbers of each band, sorted, none of them held out. Small bands come whole."""
    chooser = random.Random(seed)
    return [_sample([n for n in range(*band) if not is_held_out(n)], per_band, chooser) for band in BANDS]


def held_out_numbers(per_band: int, seed: int) -> list[int]:
    """At most `per_band` held-out numbers of each band, sorted; the three-digit band comes whole."""
    chooser = random.Random(seed)
    chosen: list[int] = []
    for band in BANDS:
        chosen += _sample([n for n in range(*band) if is_held_out(n)], per_band, chooser)
    return chosen


def english_spellings(words: str) -> list[str]:
    """Other ways people write the same English number, sorted; training reads them, it never writes them."""
    spellings = {
        words.replace(",", comma).replace(" and ", conjunction).replace("-", hyphen)
        for comma, conjunction, hyphen in itertools.product((",", ""), (" and ", " "), ("-", " "))
    }
    return sorted(spellings - {words})


def _sample(numbers: list[int], count: int, chooser: random.Random) -> list[int]:
    return sorted(chooser.sample(numbers, count)) if len(numbers) > count else numbers
