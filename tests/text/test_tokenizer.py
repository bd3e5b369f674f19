"""Text ⇄ ids on the default model: against recorded ids, against transformers when it is there, and by property."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.core.errors import InvalidRequest
from argosy.core.model import ModelFiles
from argosy.text.tokenizer import Tokenizer
from argosy.text.user_text import Segment

GOLDEN = json.loads((Path(__file__).parent / "golden" / "smollm2_ids.json").read_text())["cases"]
# SmolLM2's vocabulary has no entry for these bytes, so text that needs them cannot be spelled.
UNSPELLABLE = {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2}


def _spellable(text: str) -> bool:
    return UNSPELLABLE.isdisjoint(text.encode("utf-8"))


def _special_mixes() -> st.SearchStrategy[str]:
    words = st.sampled_from(
        ["<|im_end|>", "<|im_start|>", "<|im_", "end|>", "<|endoftext|>", " ", "\n", "a", "ก็", "👩‍👧", "12"]
    )
    return st.one_of(st.text(max_size=40), st.lists(words, max_size=8).map("".join)).filter(_spellable)


@pytest.mark.parametrize(("text", "ids"), GOLDEN, ids=range(len(GOLDEN)))
def test_ids_are_those_of_the_reference(smollm2: Tokenizer, text: str, ids: list[int]) -> None:
    assert smollm2.encode(text, add_special_tokens=False) == ids


@settings(max_examples=300, deadline=None)
@given(text=_special_mixes())
def test_decoding_gives_back_what_was_encoded(smollm2: Tokenizer, text: str) -> None:
    for parse_special in (True, False):
        ids = smollm2.encode(text, parse_special=parse_special)
        assert smollm2.decode(ids, skip_special_tokens=False) == text


@settings(max_examples=300, deadline=None)
@given(text=_special_mixes())
def test_d28_plain_text_never_holds_a_special_id(smollm2: Tokenizer, text: str) -> None:
    assert smollm2.special_ids.isdisjoint(smollm2.encode(text, parse_special=False))


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.text(max_size=12).filter(lambda t: "<" not in t), min_size=1, max_size=4))
def test_known_segments_encode_as_the_whole_text(smollm2: Tokenizer, texts: list[str]) -> None:
    segments: list[Segment] = []
    for text in texts:
        segments += [Segment("<|im_start|>", True), *([Segment(text, False)] if text else [])]
    whole = "".join(segment.text for segment in segments)
    assert smollm2.encode_segments(segments) == smollm2.encode(whole, add_special_tokens=False)


def test_ids_agree_with_transformers(smollm2: Tokenizer, smollm2_files: ModelFiles) -> None:
    if not (importlib.util.find_spec("transformers") and importlib.util.find_spec("gguf")):
        pytest.skip("needs the transformers extra")
    transformers: Any = importlib.import_module("transformers")
    path = smollm2_files.weights[0]
    reference = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)

    # transformers' conversion forgets that SmolLM2 cuts every digit off, which shows on digits of several bytes.
    characters = st.characters(exclude_categories=["Cs", "Nd", "Nl", "No"])

    @settings(max_examples=300, deadline=None)
    @given(text=st.text(characters, max_size=60).filter(_spellable))
    def agree(text: str) -> None:
        assert smollm2.encode(text, add_special_tokens=False) == reference.encode(text, add_special_tokens=False)

    agree()


def test_facts_of_the_default_model(smollm2: Tokenizer) -> None:
    assert smollm2.vocab_size == 49152
    assert smollm2.bos_token_id == 1
    assert smollm2.eos_token_ids == {0, 2}
    assert smollm2.special_tokens["<|im_end|>"] == 2
    assert smollm2.chat_template is not None
    assert smollm2.encode("Hi") == smollm2.encode("Hi", add_special_tokens=False)


def test_tokens_one_by_one(smollm2: Tokenizer) -> None:
    (token_id,) = smollm2.encode(" world")
    assert smollm2.token_text(token_id) == "Ġworld"
    assert smollm2.token_bytes(token_id) == b" world"
    assert smollm2.token_bytes(2) == b"<|im_end|>"
    assert smollm2.token_text(49152) == ""
    assert smollm2.token_bytes(49152) == b""


@pytest.mark.parametrize("wrong", [-1, 49152, 2**40])
def test_ids_outside_the_vocabulary_are_named(smollm2: Tokenizer, wrong: int) -> None:
    with pytest.raises(InvalidRequest, match=f"token id {wrong} is outside the vocabulary"):
        smollm2.decode([5, wrong])


def test_special_tokens_are_printed_only_on_demand(smollm2: Tokenizer) -> None:
    ids = smollm2.encode("a<|im_end|>b")
    assert smollm2.decode(ids) == "ab"
    assert smollm2.decode(ids, skip_special_tokens=False) == "a<|im_end|>b"


def test_sentencepiece_spaces_and_bytes(piece_tokenizer: Tokenizer) -> None:
    ids = piece_tokenizer.encode("hello world")
    assert [piece_tokenizer.token_text(token_id) for token_id in ids] == ["<s>", "▁hello", "▁world"]
    assert piece_tokenizer.decode(ids) == "hello world"
    accent = piece_tokenizer.encode("é", add_special_tokens=False)
    assert [piece_tokenizer.token_text(token_id) for token_id in accent] == ["▁", "<0xC3>", "<0xA9>"]
    assert piece_tokenizer.decode(accent) == "é"
    assert piece_tokenizer.decode(accent[:2]) == "\ufffd"


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30))
def test_sentencepiece_round_trip(piece_tokenizer: Tokenizer, text: str) -> None:
    if "▁" not in text:  # the spelling of a space, which this kind of vocabulary cannot tell apart from one
        assert piece_tokenizer.decode(piece_tokenizer.encode(text, parse_special=False)) == text
