"""Tokenizers for this room: the default model's, and small ones whose ids can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argosy.core.gguf import GgufFile
from argosy.core.model import ModelFiles
from argosy.text.byte_alphabet import CHARACTER_OF_BYTE
from argosy.text.gguf_tokenizer import build_gguf_tokenizer
from argosy.text.tokenizer import Tokenizer, load_tokenizer

SPECIALS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]")


@pytest.fixture(scope="session")
def smollm2(smollm2_files: ModelFiles) -> Tokenizer:
    return load_tokenizer(smollm2_files)


def _gguf(**fields: Any) -> GgufFile:
    metadata = {f"tokenizer.ggml.{name}": value for name, value in fields.items()}
    return GgufFile(path=Path("test.gguf"), version=3, metadata=metadata, tensors=(), data_offset=0, file_bytes=0)


@pytest.fixture(scope="session")
def gguf_file() -> Callable[..., GgufFile]:
    """GGUF heads with these `tokenizer.ggml.` fields."""
    return _gguf


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """Byte level without merges: the id of a byte is the byte, specials from 256 on."""
    tokens = (*(CHARACTER_OF_BYTE[byte] for byte in range(256)), *SPECIALS, "ĠĠ")
    file = _gguf(
        model="gpt2", pre="gpt-2", tokens=tokens, token_type=(1,) * 256 + (3,) * len(SPECIALS) + (1,),
        merges=("Ġ Ġ",), bos_token_id=257, eos_token_id=258, unknown_token_id=256,
    )  # fmt: skip
    return Tokenizer(*build_gguf_tokenizer(file))


@pytest.fixture(scope="session")
def piece_tokenizer() -> Tokenizer:
    """Sentencepiece with byte fallback: 3 specials, 256 bytes, then letters and a few words."""
    words = (
        "▁",
        "h",
        "e",
        "l",
        "o",
        "w",
        "r",
        "d",
        "he",
        "ll",
        "hell",
        "hello",
        "▁hello",
        "▁w",
        "or",
        "ld",
        "orld",
        "▁world",
    )
    tokens = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words)
    scores = (0.0,) * 259 + tuple(-float(index) for index in range(len(words)))
    types = (2, 3, 3) + (6,) * 256 + (1,) * len(words)
    file = _gguf(model="llama", tokens=tokens, scores=scores, token_type=types, bos_token_id=1, eos_token_id=2)
    return Tokenizer(*build_gguf_tokenizer(file))
