"""A converted T5 answers as the checkpoint says, and a checkpoint that is no T5 is refused by what is wrong in it."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.core.errors import SpecError
from argosy.core.model import ModelFormat

ctranslate2 = pytest.importorskip("ctranslate2", reason="needs the extra [seq2seq]")
sys.path.insert(0, str(Path(__file__).parent))
tiny_t5 = importlib.import_module("tiny_t5")

from argosy.engines.seq2seq.conversion import ensure_converted, require_convertible, write_ctranslate2  # noqa: E402

PROMPTS = ((5, 9, 17, 33, 1), (44, 2, 90, 7, 7, 61, 30, 12, 88, 3, 21, 50, 1), (*range(20, 60), 1))
SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "model_type": "mt5", "dtype": "BF16"},
    {"num_layers": 1, "num_decoder_layers": 3, "d_kv": 8, "num_heads": 4, "dtype": "BF16"},
    {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "model_type": "umt5"},
)


@pytest.mark.parametrize("changes", SHAPES, ids=["t5", "mt5-gated-untied-bf16", "uneven-stacks", "umt5"])
def test_a_converted_model_answers_as_the_definition_does(changes: dict[str, Any], tmp_path: Path) -> None:
    files = tiny_t5.write_tiny_t5(tmp_path / "model", **changes)
    folder = tmp_path / "converted"
    folder.mkdir()
    write_ctranslate2(files, folder, "float32")
    config = {**tiny_t5.CONFIG, **{name: value for name, value in changes.items() if name != "dtype"}}
    tensors = tiny_t5.tensors_of(config)
    if changes.get("dtype") == "BF16":
        tensors = {name: (each.view("u4") >> 16 << 16).view("f4") for name, each in tensors.items()}
    naive = tiny_t5.NaiveT5(tensors, config)
    translator = ctranslate2.Translator(str(folder), compute_type="float32", intra_threads=1)
    for prompt in PROMPTS:
        answer = translator.translate_batch(
            [[str(token_id) for token_id in prompt]], beam_size=1, max_decoding_length=24, min_decoding_length=24
        )
        assert [int(token) for token in answer[0].hypotheses[0]] == naive.greedy(prompt, 24)
    del translator


def test_int8_weights_are_a_quarter_of_the_size(tmp_path: Path) -> None:
    files = tiny_t5.write_tiny_t5(tmp_path / "model", d_model=128, d_ff=512, vocab_size=500)
    sizes = {}
    for kind in ("float32", "int8"):
        (tmp_path / kind).mkdir()
        write_ctranslate2(files, tmp_path / kind, kind)
        sizes[kind] = (tmp_path / kind / "model.bin").stat().st_size
    assert sizes["int8"] < 0.3 * sizes["float32"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"d_ff": 64}, "'encoder.block.0.layer.1.DenseReluDense.wi.weight' has the shape [48, 32]"),
        ({"num_layers": 3}, "no tensor 'encoder.block.2.layer.0.SelfAttention.q.weight'"),
        ({"feed_forward_proj": "gated-mish"}, "'feed_forward_proj' is 'gated-mish'"),
        ({"layer_norm_epsilon": 1e-5}, "'layer_norm_epsilon' is 1e-05"),
        ({"num_heads": "three"}, "num_heads"),
    ],
)
def test_d08_what_does_not_fit_is_named(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    files = tiny_t5.write_tiny_t5(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**tiny_t5.CONFIG, **changes}))
    with pytest.raises(SpecError) as refused:
        write_ctranslate2(files, tmp_path, "int8")
    assert told in refused.value.message


def test_other_families_and_formats_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    files = tiny_t5.write_tiny_t5(tmp_path)
    llama = msgspec.structs.replace(files.info, architecture="llama", is_encoder_decoder=False)
    for wrong, told in (
        (msgspec.structs.replace(files, info=llama), "'llama'"),
        (msgspec.structs.replace(files, format=ModelFormat.GGUF), "gguf"),
    ):
        with pytest.raises(SpecError, match=told):
            require_convertible(wrong)


@pytest.mark.anyio
async def test_it_is_converted_once_whoever_comes_at_the_same_time(tmp_path: Path) -> None:
    files = tiny_t5.write_tiny_t5(tmp_path / "model")
    said: list[str] = []
    cache = tmp_path / "cache"
    folders = await asyncio.gather(*(ensure_converted(files, cache, "int8", said.append) for _ in range(3)))
    assert len(set(folders)) == 1
    assert [word for word in said if word.startswith("converting")] == ["converting the weights to int8"]
    made = (folders[0] / "model.bin").stat().st_mtime_ns
    assert await ensure_converted(files, cache, "int8", said.append) == folders[0]
    assert (folders[0] / "model.bin").stat().st_mtime_ns == made
    assert sorted(path.name for path in cache.iterdir() if not path.name.startswith(".")) == [folders[0].name]


@pytest.mark.anyio
async def test_a_failed_conversion_leaves_nothing_that_looks_like_a_model(tmp_path: Path) -> None:
    files = tiny_t5.write_tiny_t5(tmp_path / "model")
    (files.root / "config.json").write_text(json.dumps({**tiny_t5.CONFIG, "d_ff": 64}))
    with pytest.raises(SpecError):
        await ensure_converted(files, tmp_path / "cache", "int8", lambda _: None)
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == []
