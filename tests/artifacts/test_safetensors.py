"""Safetensors headers and config files: good ones become facts, bad ones name the field (D-08, D-11)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.artifacts.inspection import inspect_model
from argosy.artifacts.safetensors import MAX_HEADER_BYTES, read_safetensors
from argosy.core.errors import SpecError
from argosy.core.model import ModelFormat

Make = Callable[..., bytes]
ROW = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def names(directory: Path) -> tuple[str, ...]:
    return tuple(path.name for path in directory.iterdir())


def test_good_header_is_read(tmp_path: Path, make_safetensors: Make) -> None:
    path = tmp_path / "model.safetensors"
    header = {"__metadata__": {"format": "pt"}, "a": ROW, "b": {"dtype": "BF16", "shape": [], "data_offsets": [16, 18]}}
    path.write_bytes(make_safetensors(header, b"\0" * 18))
    file = read_safetensors(path)
    assert [(each.name, each.dtype, each.shape, each.num_elements) for each in file.tensors] == [
        ("a", "F32", (2, 2), 4),
        ("b", "BF16", (), 1),
    ]
    assert dict(file.metadata) == {"format": "pt"}


@pytest.mark.parametrize(
    ("header", "data", "field"),
    [
        ({"a": ROW}, b"\0" * 12, "a.data_offsets"),
        ({"a": {**ROW, "data_offsets": [0, 12]}}, b"\0" * 16, "a.data_offsets"),
        ({"a": {**ROW, "data_offsets": [16, 0]}}, b"\0" * 16, "a.data_offsets"),
        ({"a": {**ROW, "data_offsets": [-16, 0]}}, b"\0" * 16, "a.data_offsets"),
        ({"a": {**ROW, "data_offsets": [0, 16, 32]}}, b"\0" * 16, "a.data_offsets"),
        ({"a": {**ROW, "data_offsets": [0.0, 16.0]}}, b"\0" * 16, "a.data_offsets"),
        ({"a": {**ROW, "dtype": "F128"}}, b"\0" * 16, "a.dtype"),
        ({"a": {**ROW, "dtype": ["F32"]}}, b"\0" * 16, "a.dtype"),
        ({"a": {**ROW, "dtype": "F16"}}, b"\0" * 16, "a.data_offsets"),
        ({"a": {**ROW, "shape": [2**60, 2**60]}}, b"\0" * 16, "a.shape"),
        ({"a": {**ROW, "shape": [-2, -2]}}, b"\0" * 16, "a.shape"),
        ({"a": {**ROW, "shape": [True, 4]}}, b"\0" * 16, "a.shape"),
        ({"a": {**ROW, "shape": [1] * 9}}, b"\0" * 16, "a.shape"),
        ({"a": {**ROW, "extra": 1}}, b"\0" * 16, "'a'"),
        ({"a": ROW, "b": ROW}, b"\0" * 16, "overlaps"),
        ({"a": {**ROW, "data_offsets": [16, 32]}}, b"\0" * 32, "hole"),
        ({"a": ROW}, b"\0" * 20, "data"),
        ({}, b"", "number of tensors"),
        ({"__metadata__": {"a": 1}, "a": ROW}, b"\0" * 16, "__metadata__"),
        (b'{"a": 1, "a": 2}', b"", "twice"),
        (b"[1]", b"", "header"),
        (b"{not json", b"", "header"),
        (b"[" * 100_000, b"", "header"),
        (b'{"a": \xff}', b"", "header"),
    ],
)
def test_d08_headers_that_do_not_fit_the_file_are_refused_by_name(
    tmp_path: Path, make_safetensors: Make, header: Any, data: bytes, field: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(make_safetensors(header, data))
    with pytest.raises(SpecError) as caught:
        read_safetensors(path)
    assert field in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("size", [0, 1, 100, MAX_HEADER_BYTES + 1, 2**63])
def test_d08_header_sizes_beyond_the_limit_or_the_file_are_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + b"{}")
    with pytest.raises(SpecError, match="header size"):
        read_safetensors(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), min_size=1, max_size=6))
def test_d08_mutated_files_raise_nothing_but_spec_errors(
    tmp_path: Path, make_safetensors: Make, edits: list[tuple[int, int]]
) -> None:
    content = bytearray(make_safetensors({"a": ROW}, b"\0" * 16))
    for position, byte in edits:
        content[position % len(content)] = byte
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(content))
    try:
        file = read_safetensors(path)
    except SpecError:
        return
    assert all(each.end <= file.data_bytes for each in file.tensors)


def test_checkpoint_becomes_facts(hf_directory: Path) -> None:
    (hf_directory / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20, "top_p": 0.95}')
    found = inspect_model(hf_directory, names(hf_directory))
    assert found.format is ModelFormat.SAFETENSORS
    assert found.weights == ("model.safetensors",)
    info = found.info
    assert (info.architecture, info.num_layers, info.hidden_size, info.head_dim) == ("llama", 1, 8, 4)
    assert (info.dtype, info.num_parameters, info.weight_bytes) == ("bf16", 32, 64)
    assert (info.sampling_defaults.temperature, info.sampling_defaults.top_k) == (0.6, 20)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_hidden_layers": 10**9}, "num_layers"),
        ({"num_hidden_layers": "1"}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"hidden_size": -8}, "hidden_size"),
        ({"hidden_size": 16}, "hidden_size"),
        ({"vocab_size": 2**40}, "vocab_size"),
        ({"vocab_size": 5}, "vocab_size"),
        ({"num_attention_heads": 0}, "num_heads"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "num_kv_heads"),
        ({"max_position_embeddings": 10**12}, "max_model_len"),
        ({"head_dim": 10**6}, "head_dim"),
        ({"model_type": "../llama"}, "architecture"),
        ({"model_type": None}, "model_type"),
    ],
)
def test_d08_absurd_configs_are_refused_by_name(hf_directory: Path, changes: dict[str, Any], field: str) -> None:
    config = json.loads((hf_directory / "config.json").read_text())
    (hf_directory / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(SpecError, match=field):
        inspect_model(hf_directory, names(hf_directory))


@pytest.mark.parametrize("text", ['{"rope_theta": NaN}', '{"a": -Infinity}', "[]", "{", "", "[" * 50_000])
def test_d08_configs_that_are_not_finite_json_are_refused(hf_directory: Path, text: str) -> None:
    (hf_directory / "config.json").write_text(text)
    with pytest.raises(SpecError, match=r"config\.json"):
        inspect_model(hf_directory, names(hf_directory))


@pytest.mark.parametrize("field", ["temperature", "top_p", "repetition_penalty"])
def test_d08_sampling_defaults_out_of_range_are_refused(hf_directory: Path, field: str) -> None:
    (hf_directory / "generation_config.json").write_text(json.dumps({field: -5.0}))
    with pytest.raises(SpecError, match=field):
        inspect_model(hf_directory, names(hf_directory))


@pytest.mark.parametrize(
    ("said", "temperature", "max_tokens"),
    [
        (None, 0.0, None),
        ({"max_new_tokens": 64, "temperature": 0.7}, 0.0, 64),
        ({"do_sample": True, "temperature": 0.7, "max_new_tokens": 64}, 0.7, 64),
    ],
)
def test_an_encoder_decoder_means_its_likeliest_answer(
    hf_directory: Path, said: dict[str, Any] | None, temperature: float, max_tokens: int | None
) -> None:
    config = json.loads((hf_directory / "config.json").read_text())
    (hf_directory / "config.json").write_text(json.dumps(config | {"is_encoder_decoder": True}))
    if said is not None:
        (hf_directory / "generation_config.json").write_text(json.dumps(said))
    defaults = inspect_model(hf_directory, names(hf_directory)).info.sampling_defaults
    assert (defaults.temperature, defaults.max_tokens) == (temperature, max_tokens)
    (hf_directory / "generation_config.json").write_text('{"max_new_tokens": 0}')
    with pytest.raises(SpecError, match="max_new_tokens"):
        inspect_model(hf_directory, names(hf_directory))


def test_d11_remote_code_is_ignored_and_said_so(hf_directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = json.loads((hf_directory / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (hf_directory / "config.json").write_text(json.dumps(config))
    (hf_directory / "modeling_evil.py").write_text("raise SystemExit('this code must never run')")
    with caplog.at_level(logging.WARNING):
        found = inspect_model(hf_directory, names(hf_directory))
    assert found.weights == ("model.safetensors",)
    assert "ignored and never run" in caplog.text


def test_d04_pickles_are_refused_with_advice(hf_directory: Path) -> None:
    (hf_directory / "model.safetensors").rename(hf_directory / "pytorch_model.bin")
    with pytest.raises(SpecError, match=r"pickle.*convert"):
        inspect_model(hf_directory, names(hf_directory))
