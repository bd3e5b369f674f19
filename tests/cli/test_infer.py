"""A batch end to end on the echo engine, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from argosy.cli.main import run
from argosy.core.model import ModelFiles

ROWS = [
    '{"prompt": "abc", "max_tokens": 4}',
    '{"custom_id": "chat", "messages": [{"role": "user", "content": "hi"}]}',
    "nonsense",
    '{"prompt": "abc", "temperature": 9}',
    '{"custom_id": "b", "method": "POST", "url": "/v1/completions", "body": {"prompt": "xyz", "max_tokens": 2}}',
]


@pytest.fixture
def prompts(tmp_path: Path, smollm2_files: ModelFiles) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(ROWS) + "\n")
    return path


def infer(prompts: Path, *flags: str) -> tuple[int, list[dict[str, object]]]:
    output = prompts.with_name("answers.jsonl")
    code = run(["infer", str(prompts), "-o", str(output), "--engine", "echo", "--max-tokens", "8", *flags])
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    return code, sorted(rows, key=lambda row: row["index"])


def test_every_row_gets_an_answer_or_an_error_in_its_form(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = infer(prompts, "--json")
    assert code == 2
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["answered"], summary["failed"]) == (5, 3, 2)
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["finish_reason"] == "length"
    assert str(rows[0]["text"]).startswith("abc")
    assert rows[1]["custom_id"] == "chat"
    assert "not a JSON object" in rows[2]["error"]["message"]  # type: ignore[index]
    assert rows[3]["error"]["param"] == "temperature"  # type: ignore[index]
    assert rows[4]["response"]["status_code"] == 200  # type: ignore[index]


def test_f10_a_second_run_asks_only_what_is_left(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, rows = infer(prompts)
    answers = prompts.with_name("answers.jsonl")
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:3]) + lines[3][:10])
    capsys.readouterr()
    _, again = infer(prompts, "--json")
    summary = json.loads(capsys.readouterr().out)
    assert summary["skipped"] == 3
    assert [row["index"] for row in again] == [row["index"] for row in rows]


def test_a_finished_batch_loads_nothing(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    infer(prompts)
    prompts.with_name("answers.jsonl").chmod(0o600)
    capsys.readouterr()
    code = run(["infer", str(prompts), "-o", str(prompts.with_name("answers.jsonl")), "--model", "/no/such/model"])
    assert code == 0
    assert "all 5 rows are answered" in capsys.readouterr().err


def test_a_dry_run_checks_and_writes_nothing(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = infer(prompts, "--dry-run")
    assert (code, rows) == (2, [])
    captured = capsys.readouterr()
    assert "5 rows, 5 to answer, 1 of them bad" in captured.out
    assert "line 3 is not a JSON object" in captured.err


def test_answers_of_a_longer_file_are_noticed(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    infer(prompts)
    prompts.write_text("\n".join(ROWS[:2]) + "\n")
    code, _ = infer(prompts)
    assert code == 2
    assert "holds answers to 5 rows" in capsys.readouterr().err
