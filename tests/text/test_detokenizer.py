"""The law of the detokenizer: whatever the cuts, the pieces joined are the whole decoded at once, up to a stop."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.core.sampling import TextParams
from argosy.text.detokenizer import Detokenizer
from argosy.text.tokenizer import Tokenizer

TEXTS = st.one_of(st.text(max_size=30), st.sampled_from(["👩‍👩‍👧‍👦 ก็ é", "aab aab", "STOP", "<|im_end|>x"]))


def run(
    tokenizer: Tokenizer, ids: list[int], cuts: list[int], params: TextParams, *, min_tokens: int = 0
) -> tuple[list[str], str | None]:
    """The pieces and the stop string, pushing between the cuts."""
    detokenizer, pieces, stop, start = Detokenizer(tokenizer, params, min_tokens=min_tokens), [], None, 0
    for end in [*sorted(min(cut, len(ids)) for cut in cuts), len(ids)]:
        delta = detokenizer.push(ids[start:end], is_last=end == len(ids) and start != end)
        pieces.append(delta.text)
        stop = stop or delta.stop
        start = end
    pieces.append(detokenizer.push([], is_last=True).text)
    return pieces, stop


def first_stop(text: str, stops: tuple[str, ...], after: int = 0) -> tuple[int, str] | None:
    """Where the stop string that is complete first, `after` so many characters, begins: the definition, naively."""
    for end in range(after + 1, len(text) + 1):
        found = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return end - len(longest), longest
    return None


@settings(max_examples=400, deadline=None)
@given(data=st.data(), cuts=st.lists(st.integers(0, 60), max_size=6), skip=st.booleans())
def test_pieces_joined_are_the_whole(smollm2: Tokenizer, data: st.DataObject, cuts: list[int], skip: bool) -> None:
    ids = data.draw(st.one_of(TEXTS.map(smollm2.encode), st.lists(st.integers(0, 49151), max_size=30)))
    pieces, _ = run(smollm2, ids, cuts, TextParams(skip_special_tokens=skip))
    assert "".join(pieces) == smollm2.decode(ids, skip_special_tokens=skip)


@settings(max_examples=400, deadline=None)
@given(ids=st.lists(st.integers(0, 276), max_size=30), cuts=st.lists(st.integers(0, 30), max_size=6))
def test_byte_fallback_joins_to_the_whole(piece_tokenizer: Tokenizer, ids: list[int], cuts: list[int]) -> None:
    pieces, _ = run(piece_tokenizer, ids, cuts, TextParams())
    assert "".join(pieces) == piece_tokenizer.decode(ids)


@settings(max_examples=500, deadline=None)
@given(
    text=st.text("abc ", max_size=24),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4).map(tuple),
    cuts=st.lists(st.integers(0, 24), max_size=8),
    include=st.booleans(),
)
def test_the_first_complete_stop_string_ends_the_text(
    byte_tokenizer: Tokenizer, text: str, stops: tuple[str, ...], cuts: list[int], include: bool
) -> None:
    ids = [ord(character) for character in text]
    pieces, stop = run(byte_tokenizer, ids, cuts, TextParams(stop=stops, include_stop=include))
    expected = first_stop(text, stops)
    if expected is None:
        assert (stop, "".join(pieces)) == (None, text)
    else:
        at, found = expected
        assert stop == found
        assert "".join(pieces) == text[: at + (len(found) if include else 0)]


@settings(max_examples=500, deadline=None)
@given(
    text=st.text("abc ", max_size=24),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4).map(tuple),
    cuts=st.lists(st.integers(0, 24), max_size=8),
    min_tokens=st.integers(0, 26),
)
def test_a_stop_string_complete_within_min_tokens_passes(
    byte_tokenizer: Tokenizer, text: str, stops: tuple[str, ...], cuts: list[int], min_tokens: int
) -> None:
    ids = [ord(character) for character in text]
    pieces, stop = run(byte_tokenizer, ids, cuts, TextParams(stop=stops), min_tokens=min_tokens)
    expected = first_stop(text, stops, after=min_tokens)
    if expected is None:
        assert (stop, "".join(pieces)) == (None, text)
    else:
        assert (stop, "".join(pieces)) == (expected[1], text[: expected[0]])


def test_half_a_character_is_never_shown(byte_tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(byte_tokenizer, TextParams())
    assert [detokenizer.push([byte]).text for byte in "👍".encode()] == ["", "", "", "👍"]
    assert [detokenizer.push([byte]).text for byte in (0xE0, 0xB8)] == ["", ""]
    assert detokenizer.push([], is_last=True).text == "\ufffd"


def test_what_could_begin_a_stop_string_waits(byte_tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(byte_tokenizer, TextParams(stop=("\n\nUser:",)))
    assert detokenizer.push(b"Hi\n").text == "Hi"
    assert detokenizer.push(b"\n").text == ""
    assert detokenizer.push(b"You").text == "\n\nYou"
    assert detokenizer.push(b"\n\nUse").text == ""
    assert detokenizer.push([], is_last=True).text == "\n\nUse"


def test_after_the_stop_there_is_no_more_text(byte_tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(byte_tokenizer, TextParams(stop=("x",)))
    delta = detokenizer.push(b"axb")
    assert (delta.text, delta.stop) == ("a", "x")
    again = detokenizer.push(b"more", is_last=True)
    assert (again.text, again.stop) == ("", "x")


@pytest.mark.parametrize(("continues", "text"), [(False, "hello world"), (True, " hello world")])
def test_the_space_at_the_front(piece_tokenizer: Tokenizer, continues: bool, text: str) -> None:
    detokenizer = Detokenizer(piece_tokenizer, TextParams(), continues_text=continues)
    ids = piece_tokenizer.encode("hello world", add_special_tokens=False)
    assert "".join(detokenizer.push([token_id]).text for token_id in ids) == text


def test_ids_beyond_the_vocabulary_print_nothing(byte_tokenizer: Tokenizer) -> None:
    # A model's output layer is often padded beyond the tokenizer's vocabulary.
    assert Detokenizer(byte_tokenizer, TextParams()).push([97, 999_999, 98]).text == "ab"
