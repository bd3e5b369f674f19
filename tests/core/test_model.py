"""Names and references: what is safe to become a path component, and what is not."""

from __future__ import annotations

import pytest

from argosy.core.errors import InvalidRequest
from argosy.core.model import ModelInfo, ModelRef, ModelScheme, is_digest, is_name, require_name


@pytest.mark.parametrize("name", ["smollm2", "Qwen2.5-0.5B", "a", "0", "x" * 96, "v1.2_rc-3"])
def test_a_plain_name_is_accepted(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "a\\b", "%2e%2e/x", "a\0b", "CON", "con.txt", "LPT1", "nul"),
        *("-rf", ".hidden", "x" * 97, "x" * 300, "a..b", "а", "model name", "a\n", "ｍodel", "a:b"),
    ],
)
def test_d06_a_dangerous_name_is_refused(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(InvalidRequest, match="not a valid name"):
        require_name(name, "model")


@pytest.mark.parametrize(
    ("digest", "good"),
    [
        ("sha256:" + "0" * 64, True),
        ("sha256:" + "0" * 63, False),
        ("sha256:" + "A" * 64, False),
        ("sha256-" + "0" * 64, False),
        ("sha256:../../../../etc/passwd", False),
        ("sha256:" + "0" * 64 + "\n", False),
    ],
)
def test_d06_a_digest_has_one_form(digest: str, good: bool) -> None:
    assert is_digest(digest) is good


def test_a_reference_prints_the_form_it_was_written_in() -> None:
    assert str(ModelRef(scheme=ModelScheme.HF, location="org/name", revision="main")) == "hf:org/name@main"
    assert str(ModelRef(scheme=ModelScheme.CATALOG, location="smollm2")) == "smollm2"


def test_kv_bytes_per_token_of_smollm2() -> None:
    info = ModelInfo(
        architecture="llama",
        num_layers=30,
        hidden_size=576,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        vocab_size=49152,
        max_model_len=8192,
        dtype="q4_1",
        num_parameters=134_515_008,
        weight_bytes=96_600_000,
    )
    assert info.kv_bytes_per_token() == 23_040
