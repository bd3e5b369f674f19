"""Models small enough to be written by hand, whole enough to pass every check."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argosy.artifacts.store import ModelStore


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _pair(key: str, content: str | int) -> bytes:
    if isinstance(content, str):
        return _string(key) + struct.pack("<I", 8) + _string(content)
    return _string(key) + struct.pack("<II", 4, content)


def _gguf(salt: int = 0, **changes: Any) -> bytes:
    """A llama of one layer, width 8, four tokens. changes: metadata by key with '_' for '.', None removes it."""
    facts: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.embedding_length": 8,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.context_length": 64,
        "llama.vocab_size": 4,
        "salt": salt,
    }
    facts.update({key.replace("__", "."): content for key, content in changes.items()})
    pairs = [_pair(key, content) for key, content in facts.items() if content is not None]
    rows = [("token_embd.weight", (8, 4), 0), ("blk.0.attn_norm.weight", (8,), 128)]
    table = [_string(name) + struct.pack(f"<I{len(s)}QIQ", len(s), *s, 0, offset) for name, s, offset in rows]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(table), len(pairs)) + b"".join(pairs) + b"".join(table)
    return head + b"\0" * (-len(head) % 32) + b"\0" * 160


def _safetensors(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 4,
    "max_position_embeddings": 64,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def make_gguf() -> Callable[..., bytes]:
    """The bytes of a tiny GGUF model; another `salt` makes another content."""
    return _gguf


@pytest.fixture
def make_safetensors() -> Callable[..., bytes]:
    """The bytes of a safetensors file with this header and data."""
    return _safetensors


@pytest.fixture
def hf_directory(tmp_path: Path) -> Path:
    """A checkpoint in Hugging Face's layout."""
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    header = {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]}}
    (directory / "model.safetensors").write_bytes(_safetensors(header, b"\0" * 64))
    (directory / "tokenizer.json").write_text("{}")
    return directory


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """An empty store."""
    made = ModelStore(tmp_path / "store")
    made.create()
    return made
