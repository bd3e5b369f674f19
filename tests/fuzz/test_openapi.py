"""What a fuzzer makes of /openapi.json is answered as the document says, and never with a 5xx.

Schemathesis reads the document of a running server and derives requests from it: good ones, wrong ones, and the edges
between. Its seed is fixed, so a failure here is the same failure everywhere. By hand it may run longer:

    schemathesis run http://127.0.0.1:8000/openapi.json --phases examples,coverage,fuzzing,stateful -n 1000
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from argosy.core.model import ModelFiles

pytestmark = pytest.mark.slow

KEY = "ak-a-key-for-the-fuzzer"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth"
START_SECONDS = 60


@contextmanager
def echo_server(*flags: str) -> Iterator[str]:
    """The address of a server whose engine repeats prompts."""
    with server("serve", "smollm2", "--engine", "echo", *flags, ready=r"ready: (http://[^/]+)/") as address:
        yield address


@contextmanager
def server(*command: str, ready: str) -> Iterator[str]:
    """The address a server says it listens at; it must end well afterwards."""
    program = [sys.executable, "-m", "argosy.cli.main", *command, "--port", "0", "--log-level", "error"]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        assert process.stderr is not None
        try:
            yield next(found[1] for line in process.stderr if (found := re.match(ready, line)))
        finally:
            watchdog.cancel()
            process.terminate()
            _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in said


def fuzz(address: str, tmp_path: os.PathLike[str], *flags: str) -> None:
    """Run the fuzzer for a while; fails with its report."""
    command = ["run", f"{address}/openapi.json", "--checks", CHECKS, "--seed", "1", "--no-color", *flags]
    command += ["--suppress-health-check", "all", "--no-shrink", "--request-timeout", "20"]
    program = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    environment = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)}
    done = subprocess.run(
        [*program, *command], capture_output=True, text=True, timeout=200, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"(\d+) generated, \1 passed", done.stdout), done.stdout[-2000:]


def test_d26_a_server_without_a_key_answers_every_request_as_documented(
    smollm2_files: ModelFiles, tmp_path: os.PathLike[str]
) -> None:
    with echo_server() as address:
        fuzz(address, tmp_path, "--phases", "examples,coverage,fuzzing", "-n", "30")


def test_d15_a_server_with_a_key_answers_as_documented_with_it_and_not_without(
    smollm2_files: ModelFiles, tmp_path: os.PathLike[str]
) -> None:
    with echo_server("--api-key", KEY) as address:
        header = ("-H", f"Authorization: Bearer {KEY}")
        fuzz(address, tmp_path, "--phases", "examples,coverage", "-n", "10", *header)


def test_d20_a_control_plane_answers_every_request_as_documented(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with server("control", "--state", str(state), "--backend", "fake", ready=r"control plane: (http://\S+)") as address:
        header = ("-H", f"Authorization: Bearer {(state / 'admin.key').read_text().strip()}")
        # Watches never end; tests/api/test_streams.py has them.
        endless = ("--exclude-path-regex", "(inferenceservices|events|routes)$")
        fuzz(address, tmp_path, "--phases", "examples,coverage,fuzzing", "-n", "15", *header, *endless)
