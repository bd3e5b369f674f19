"""The small T5's recipe: what is trained on is never measured, and the committed model reaches its bar."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "t5"
MODEL = FOLDER / "model"
BAR = 0.97
MEASUREMENTS = ("torch_greedy", "int8_greedy", "int8_beam_4")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"t5_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAIRS: Any = load("number_pairs")
METRICS = json.loads((MODEL / "metrics.json").read_text())


def test_numbers_that_are_measured_are_never_trained_on() -> None:
    trained = {number for band in PAIRS.training_numbers(2_000, seed=1) for number in band}
    measured = set(PAIRS.held_out_numbers(250, seed=1))
    assert len(measured) > 800
    assert trained.isdisjoint(measured)
    assert not any(PAIRS.is_held_out(number) for number in trained)


def test_every_small_number_is_trained_on_and_every_band_has_held_out_numbers() -> None:
    bands = PAIRS.training_numbers(2_000, seed=1)
    assert bands[0] == list(range(100))
    assert bands[1] == [n for n in range(100, 1_000) if not PAIRS.is_held_out(n)]
    measured = PAIRS.held_out_numbers(250, seed=1)
    for start, end in PAIRS.BANDS[1:]:
        assert sum(start <= number < end for number in measured) > 70


def test_the_split_does_not_move_between_runs() -> None:
    assert PAIRS.training_numbers(50, seed=3) == PAIRS.training_numbers(50, seed=3)
    assert [n for n in range(200) if PAIRS.is_held_out(n)] == [114, 115, 116, 122, 137, 140, 143, 149, 168, 181]


def test_the_prompt_has_the_form_of_the_tutorials_handler() -> None:
    assert PAIRS.prompt("en", "fr", "forty-two") == "translate English to French: forty-two"
    assert PAIRS.prompt("de", "en", "null") == "translate German to English: null"
    with pytest.raises(KeyError):
        PAIRS.prompt("en", "es", "one")


def test_other_english_spellings_differ_from_the_first_and_keep_its_words() -> None:
    words = "one thousand, two hundred and thirty-four"
    spellings = PAIRS.english_spellings(words)
    assert len(spellings) == len(set(spellings)) == 7
    assert words not in spellings
    assert "one thousand two hundred thirty four" in spellings
    assert PAIRS.english_spellings("seven") == []


@pytest.mark.parametrize("measurement", MEASUREMENTS)
@pytest.mark.parametrize("pair", PAIRS.DIRECTIONS, ids="-".join)
def test_the_committed_model_reaches_the_bar_in_each_direction(measurement: str, pair: tuple[str, str]) -> None:
    assert METRICS[measurement]["-".join(pair)] >= BAR


def test_the_committed_model_is_whole_and_small() -> None:
    for name in ("config.json", "generation_config.json", "spiece.model", "tokenizer.json", "tokenizer_config.json"):
        assert (MODEL / name).is_file(), name
    assert (MODEL / "special_tokens_map.json").is_file()
    assert 1_000_000 <= METRICS["parameters"] <= 3_000_000
    assert (MODEL / "model.safetensors").stat().st_size < 8 * 2**20
    assert METRICS["held_out_numbers"] > 800


def test_the_recipes_number_words_name_one_number_each() -> None:
    num2words = pytest.importorskip("num2words").num2words
    numbers = [*range(1_000), *PAIRS.held_out_numbers(50, seed=1)]
    for language in PAIRS.LANGUAGES:
        assert len({num2words(number, lang=language) for number in numbers}) == len(set(numbers))
