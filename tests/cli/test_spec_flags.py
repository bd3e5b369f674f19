"""Flags and files into specs, for every server alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from argosy.cli.spec_flags import read_config, spec_from
from argosy.cli.up import up_spec
from argosy.core.control_spec import ControlSpec, GatewaySpec, UpSpec
from argosy.core.errors import SpecError
from argosy.core.web_spec import LimitsSpec, LogLevel


def written(directory: Path, text: str) -> Path:
    config = directory / "config.yaml"
    config.write_text(text)
    return config


def test_flags_win_over_the_file_and_find_their_places(tmp_path: Path) -> None:
    config = written(tmp_path, "port: 9000\nhost: 127.0.0.2\nlimits: {max_body_bytes: 5, max_header_bytes: 6}\n")
    flags: dict[str, Any] = {
        "config": config,
        "port": 9001,
        "host": None,
        "max_body_bytes": 7,
        "api_key": ["long-enough"],
        "allowed_host": [],
    }
    assert spec_from(ControlSpec, "argosy control", config, flags) == ControlSpec(
        port=9001,
        host="127.0.0.2",
        api_keys=("long-enough",),
        limits=LimitsSpec(max_body_bytes=7, max_header_bytes=6),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot: 1", "unknown field `prot`"),
        ("port: many", "Expected `int`, got `str` - at `$.port`"),
        ("- 1", "is not a mapping of fields"),
        ("a: [", "is not YAML"),
        ("limits: 3", "limits in"),
    ],
)
def test_a_wrong_file_is_told_by_its_name(tmp_path: Path, text: str, told: str) -> None:
    config = written(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        spec_from(ControlSpec, "argosy control", config, {"max_body_bytes": 7})
    assert told in caught.value.message
    assert str(config) in caught.value.message


def test_an_empty_section_of_a_file_may_be_filled_by_a_flag(tmp_path: Path) -> None:
    spec = spec_from(ControlSpec, "argosy control", written(tmp_path, "limits:\n"), {"max_body_bytes": 7})
    assert spec.limits.max_body_bytes == 7


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_config(tmp_path / "nowhere.yaml")


def test_up_gives_each_role_what_is_its() -> None:
    flags: dict[str, Any] = {
        "port": 1,
        "control_port": 2,
        "state": Path("s"),
        "backend": "fake",
        "devices": Path("d.yaml"),
        "keep_replicas": True,
        "log_level": "debug",
        "otlp_endpoint": "http://otlp",
        "api_key": ["long-enough"],
        "shutdown_timeout": 5.0,
        "insecure": None,
    }
    control = ControlSpec(
        port=2,
        state=Path("s"),
        backend="fake",
        devices=Path("d.yaml"),
        log_level=LogLevel.DEBUG,
        otlp_endpoint="http://otlp",
    )
    gateway = GatewaySpec(
        port=1,
        api_keys=("long-enough",),
        shutdown_grace_seconds=5.0,
        log_level=LogLevel.DEBUG,
        otlp_endpoint="http://otlp",
    )
    assert up_spec(None, flags) == UpSpec(control=control, gateway=gateway, keep_replicas=True)


def test_up_reads_both_roles_from_one_file(tmp_path: Path) -> None:
    config = written(tmp_path, "control: {port: 5, resync_seconds: 2}\ngateway: {port: 6}\n")
    spec = up_spec(config, {"config": config, "port": 7})
    assert spec == UpSpec(control=ControlSpec(port=5, resync_seconds=2.0), gateway=GatewaySpec(port=7))
