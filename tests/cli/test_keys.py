"""`argosy keys`: what is asked on the command line stands in the file, limits included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from argosy.cli.main import run
from argosy.web.api_keys import read_keys


def test_a_key_with_limits_is_created_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ["--file", str(tmp_path / "keys.json")]
    limits = ["--requests-per-minute", "60", "--tokens-per-minute", "90000"]
    assert run(["keys", "create", "alice", *file, *limits]) == 0
    assert run(["keys", "create", "ops", *file, "--scope", "metrics"]) == 0
    created = capsys.readouterr().out.split()
    assert len([key for key in created if key.startswith("ak-")]) == 2
    assert run(["keys", "list", *file, "--json"]) == 0
    alice, ops = json.loads(capsys.readouterr().out)
    assert (alice["requests_per_minute"], alice["tokens_per_minute"]) == (60, 90000)
    assert (ops["requests_per_minute"], ops["scopes"]) == (None, ["metrics"])
    assert "sha256" not in alice
    assert run(["keys", "list", *file]) == 0
    assert "90000" in capsys.readouterr().out
    assert run(["keys", "revoke", "alice", *file]) == 0
    assert [key.name for key in read_keys(tmp_path / "keys.json").keys] == ["ops"]


def test_a_limit_below_one_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "create", "alice", "--file", str(tmp_path / "k.json"), "--requests-per-minute", "0"]) != 0
    assert "--requests-per-minute 0 is no limit" in capsys.readouterr().err
