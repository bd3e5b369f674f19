"""A module of ours in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from argosy.core.child_module import module_command


@pytest.mark.parametrize("writes_bytecode", [True, False])
def test_what_this_process_can_import_the_other_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes_bytecode: bool
) -> None:
    (tmp_path / "only_here.py").write_text(
        "import sys; print(__name__, sys.flags.isolated, sys.dont_write_bytecode, sys.argv[1:])"
    )
    monkeypatch.syspath_prepend(tmp_path)
    command = module_command(sys.executable, "only_here", "a", "", writes_bytecode=writes_bytecode)
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"__main__ 1 {not writes_bytecode} ['a', '']\n", "")
