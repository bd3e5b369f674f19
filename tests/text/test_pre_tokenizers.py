"""Every row of the pre-tokenizer table against llama.cpp, on a vocabulary whose merges cross every word boundary.

Real vocabularies hide mistakes here: their merges were learned inside words. This one was learned without words, so
that any other cut gives other ids. Texts with combining marks are left out: for those llama.cpp writes simpler
patterns than the families' own tokenizers (tekken, gpt-4o), and it leaves out qwen2's composition (NFC).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from argosy.core.errors import SpecError
from argosy.core.gguf import GgufFile
from argosy.text.gguf_tokenizer import build_gguf_tokenizer
from argosy.text.pre_tokenizers import PRE_TOKENIZERS
from argosy.text.tokenizer import Tokenizer

GOLDEN = json.loads((Path(__file__).parent / "golden" / "pre_tokenizers.json").read_text())
IDS = {name: ids for names, ids in GOLDEN["ids"].items() for name in names.split(" ")}


def build(gguf_file: Callable[..., GgufFile], pre: str) -> Tokenizer:
    tokens = tuple(GOLDEN["tokens"].split(" "))
    return Tokenizer(
        *build_gguf_tokenizer(gguf_file(model="gpt2", pre=pre, tokens=tokens, merges=tuple(GOLDEN["merges"])))
    )


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_words_are_cut_as_llama_cpp_cuts_them(gguf_file: Callable[..., GgufFile], pre: str) -> None:
    tokenizer = build(gguf_file, pre)
    for text, ids in zip(GOLDEN["texts"], IDS[pre], strict=True):
        assert tokenizer.encode(text) == ids, text


def test_qwen2_composes_characters(gguf_file: Callable[..., GgufFile]) -> None:
    assert build(gguf_file, "qwen2").encode("e\u0301") == build(gguf_file, "qwen2").encode("é")
    assert build(gguf_file, "gpt-2").encode("e\u0301") != build(gguf_file, "gpt-2").encode("é")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"pre": "nonesuch"}, r"tokenizer\.ggml\.pre.*nonesuch.*smollm"),
        ({"model": "bert"}, r"tokenizer\.ggml\.model.*bert"),
        ({"tokens": ()}, r"tokenizer\.ggml\.tokens"),
        ({"merges": ("a b",)}, r"tokenizer\.ggml\.merges.*a b"),
        ({"merges": ("x y",)}, r"tokenizer\.ggml\.merges.*x y"),
        ({"merges": ("xx",)}, r"tokenizer\.ggml\.merges.*xx"),
        ({"token_type": (1,)}, r"tokenizer\.ggml\.token_type"),
        ({"eos_token_id": 7}, r"tokenizer\.ggml\.eos_token_id.*7"),
        ({"model": "llama"}, r"tokenizer\.ggml\.scores"),
        ({"add_bos_token": 1}, r"tokenizer\.ggml\.add_bos_token"),
    ],
)
def test_wrong_metadata_name_the_field(
    gguf_file: Callable[..., GgufFile], fields: dict[str, object], match: str
) -> None:
    metadata = {"model": "gpt2", "pre": "gpt-2", "tokens": ("x", "y", "xx"), "merges": ("x x",), **fields}
    with pytest.raises(SpecError, match=match):
        build_gguf_tokenizer(gguf_file(**metadata))
