"""The frame of the command line: names, suggestions, exit codes, one line per error."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import argosy
from argosy.cli.exits import describe, exit_code
from argosy.cli.main import COMMANDS, SUMMARIES, load_command, run
from argosy.core.errors import (
    ArtifactError,
    DeadlineExceeded,
    EngineDead,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    SpecError,
)

Output = pytest.CaptureFixture[str]


def test_version(capsys: Output) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"argosy {argosy.__version__}\n"


def test_help_lists_every_command_and_is_quick(capsys: Output) -> None:
    began = time.process_time()
    assert run(["--help"]) == 0
    assert time.process_time() - began < 0.150
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown and SUMMARIES[name] in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries_are_kept_for_every_command(name: str) -> None:
    assert load_command(name).name == name
    assert SUMMARIES[name].endswith(".")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["srve"], "did you mean 'serve'?"),
        (["zzz"], "there are serve, chat"),
        (["--verson"], "did you mean '--version'?"),
        (["infer", "--ouput", "x"], "did you mean '--output'?"),
        (["infer"], "Missing"),
        (["infer", "x", "-o", "y", "--concurrency", "many"], "--concurrency"),
    ],
)
def test_a_wrong_line_is_told_in_one_line_with_the_next_step(arguments: list[str], told: str, capsys: Output) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert told in captured.err
    assert "--help" in captured.err


def test_an_error_has_a_traceback_only_with_debug(capsys: Output) -> None:
    assert run(["infer", "/nowhere.jsonl", "-o", "/nowhere.out"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert run(["infer", "/nowhere.jsonl", "-o", "/nowhere.out", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("x"), 2),
        (ModelNotFound("x"), 2),
        (SpecError("x"), 2),
        (FileNotFoundError(2, "No such file", "x"), 2),
        (Overloaded("x", retry_after_seconds=1), 1),
        (EngineDead("x"), 1),
        (ArtifactError("x"), 1),
        (RuntimeError("x"), 1),
        (DeadlineExceeded("x"), 3),
        (TimeoutError("x"), 3),
        (KeyboardInterrupt(), 130),
        (ExceptionGroup("g", [ValueError("v"), ExceptionGroup("h", [SpecError("s")])]), 2),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SpecError("two\nlines"), "two lines"),
        (FileNotFoundError(2, "No such file or directory", "x.jsonl"), "No such file or directory: x.jsonl"),
        (ValueError("odd"), "ValueError: odd (this is a bug: run it again with --debug and report it)"),
        (ExceptionGroup("g", [ValueError("v"), SpecError("the cause")]), "the cause"),
    ],
)
def test_descriptions_are_one_line(error: BaseException, told: str) -> None:
    assert describe(error) == told


def test_no_colour_where_nobody_looks(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    look: Callable[[], bool] = lambda: True  # noqa: E731
    monkeypatch.setattr("sys.stderr.isatty", look)
    monkeypatch.setenv("NO_COLOR", "1")
    run(["srve"])
    assert "\x1b" not in capsys.readouterr().err
    monkeypatch.delenv("NO_COLOR")
    run(["srve"])
    assert "\x1b[1;31merror:" in capsys.readouterr().err
