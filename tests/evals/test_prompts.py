from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.errors import SpecError
from argosy.evals.prompts import WORDS, Calibration, PromptLine, PromptWriter, fit_calibration, read_prompts

PLAIN = PromptWriter(Calibration(), seed=0)


def test_the_words_that_number_a_prompt_are_distinct() -> None:
    assert len(set(WORDS)) == len(WORDS) >= 128


def test_calibration_is_the_line_through_two_measurements() -> None:
    found = fit_calibration((16, 55), (272, 311))
    assert found == Calibration(tokens_per_word=1.0, overhead_tokens=39.0)
    assert found.words_for(750) == 711
    assert found.words_for(10) == 1, "a template longer than the wish leaves one word"
    assert fit_calibration((16, 20), (272, 20)) == Calibration(), "a server that counts nothing is not believed"


@given(tokens=st.integers(1, 70_000), key=st.integers(-1000, 5000))
def test_length_is_as_asked(tokens: int, key: int) -> None:
    assert len(PLAIN.text(tokens, key).split()) == tokens


@given(st.sets(st.integers(-500, 100_000), min_size=2, max_size=2))
def test_two_prompts_differ_within_three_words(keys: set[int]) -> None:
    first, second = (PLAIN.words(40, key)[:3] for key in keys)
    assert first != second


def test_one_seed_gives_one_text_and_another_seed_another() -> None:
    assert PLAIN.text(50, 7) == PromptWriter(Calibration(), seed=0).text(50, 7)
    assert PLAIN.text(50, 7) != PromptWriter(Calibration(), seed=1).text(50, 7)


def test_a_group_shares_its_prefix_and_nothing_more() -> None:
    first, second = (PLAIN.text(100, key, prefix_tokens=60, prefix_key=2).split() for key in (1, 2))
    assert first[:60] == second[:60]
    assert first[60:63] != second[60:63]
    other = PLAIN.text(100, 1, prefix_tokens=60, prefix_key=3).split()
    assert other[:3] != first[:3]


def test_equal_blocks_give_equal_text_at_equal_places() -> None:
    first = PLAIN.text_of_blocks(1200, [5, 6, 7], 512).split()
    second = PLAIN.text_of_blocks(1500, [5, 6, 9], 512).split()
    assert (len(first), len(second)) == (1200, 1500)
    assert first[:1024] == second[:1024]
    assert first[1024:1027] != second[1024:1027]


def test_prompt_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "hello", "max_tokens": 5}\n\n{"messages": [{"role": "user", "content": "hi"}]}\n')
    assert read_prompts(path) == [
        PromptLine(prompt="hello", max_tokens=5),
        PromptLine(messages=[{"role": "user", "content": "hi"}]),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no prompt"),
        ("{}", ":1: give either"),
        ('{"prompt": "a", "messages": []}', "not both"),
        ('{"prompt": 1}', ":1: not a prompt"),
        ('{"prompt": "a"}\n{"prompt": "b", "max_tokens": 0}', ":2: max_tokens is 0"),
        ("nonsense", ":1: not a prompt"),
    ],
)
def test_a_wrong_prompt_file_is_refused_with_its_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    with pytest.raises(SpecError, match=told):
        read_prompts(path)
