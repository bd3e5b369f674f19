"""Completion as a shell asks for it: the script, then names of commands, flags, services and revisions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from live_cloud import Cloud

from argosy.cli.main import COMMANDS, HIDDEN, SECTIONS, SUMMARIES, run

PROGRAM = [sys.executable, "-m", "argosy.cli.main"]


def completed(*words: str) -> list[str]:
    """What bash would offer for the last word."""
    line = {"COMP_WORDS": " ".join(("argosy", *words)), "COMP_CWORD": str(len(words))}
    environment = {**os.environ, **line, "_ARGOSY_COMPLETE": "complete_bash"}
    done = subprocess.run(PROGRAM, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


def test_every_command_stands_in_one_section() -> None:
    assert set(SUMMARIES) == set(COMMANDS)
    assert sum(len(section) for section in SECTIONS.values()) == len(COMMANDS)
    assert not set(HIDDEN) & set(COMMANDS)


@pytest.mark.parametrize(
    ("shell", "part"), [("bash", "complete -o default -F"), ("zsh", "#compdef argosy"), ("fish", "complete --command")]
)
def test_the_script_of_each_shell(shell: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert part in script
    assert "_ARGOSY_COMPLETE" in script


def test_bash_completes_with_the_script() -> None:
    script = subprocess.run([*PROGRAM, "completion", "bash"], capture_output=True, text=True, check=True, timeout=60)
    shell = f"""
        argosy() {{ {sys.executable} -m argosy.cli.main "$@"; }}
        {script.stdout.replace("$1", f"{sys.executable} -m argosy.cli.main")}
        COMP_WORDS=(argosy ro); COMP_CWORD=1; _argosy_completion argosy; echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("rollout\n", "")


def test_commands_and_flags() -> None:
    assert completed("de") == ["deploy", "delete"]
    assert completed("rollout", "p") == ["pause"]
    assert "--warm-spares" in completed("deploy", "smollm2", "--wa")
    assert completed("deploy", "--scale-on", "queue") == ["queue_length", "queue_time"]
    assert "standby" not in completed("s")


def test_services_and_revisions_of_the_control_plane(cloud: Cloud) -> None:
    cloud.done("deploy", "smollm2", "--name", "chat")
    cloud.done("deploy", "smollm2", "--name", "other", "--no-wait")
    assert completed("get", "") == ["chat", "other"]
    assert completed("why", "o") == ["other"]
    assert completed("delete", "chat", "") == ["other"]
    assert completed("traffic", "chat", "v") == ["v1="]
    assert completed("rollout", "undo", "chat", "--to", "") == ["v1"]
    assert completed("get", "--control", "http://127.0.0.1:9", "") == []
    assert completed("get", "--state", "/nowhere", "") == []
