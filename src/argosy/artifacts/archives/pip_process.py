"""pip, run as a process of its own for the virtual environment of a scratch directory, until it ends or must."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from argosy.core.errors import DeadlineExceeded

_KEPT_LINES = 200


class PackageSources(msgspec.Struct, frozen=True, kw_only=True):
    """Where packages come from. Empty = what pip is configured to use.

    is_offline: no index is asked. allows_building: source packages may be built, which runs their code.
    """

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    is_offline: bool = False
    allows_building: bool = False

    def arguments(self) -> list[str]:
        """The same for pip."""
        words = ["--index-url", self.index_url] if self.index_url else []
        words += [word for url in self.extra_index_urls for word in ("--extra-index-url", url)]
        words += [word for place in self.find_links for word in ("--find-links", place)]
        words += ["--no-index"] if self.is_offline else []
        return words if self.allows_building else [*words, "--only-binary", ":all:"]


def has_own_pip() -> bool:
    """Whether this installation has a pip that can serve other environments; else each gets one of its own."""
    return importlib.util.find_spec("pip") is not None


def run_pip(
    scratch: Path, arguments: list[str], deadline: float, on_line: Callable[[str], None]
) -> tuple[list[str], int]:
    """`pip install` for the environment `scratch`/venv. deadline: on the monotonic clock.

    Returns the last lines it wrote and its exit code. Raises: DeadlineExceeded.
    """
    python = str(scratch / "venv" / "bin" / "python")
    start = [sys.executable, "-m", "pip", "--python", python] if has_own_pip() else [python, "-m", "pip"]
    quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    return _run([*start, "install", *quiet, *arguments], scratch, deadline, on_line)


def _run(command: list[str], directory: Path, deadline: float, on_line: Callable[[str], None]) -> tuple[list[str], int]:
    """Run to the end, or to the deadline. Returns the last lines and the exit code."""
    child = subprocess.Popen(  # noqa: S603 - pip, with words we made
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=directory,
        start_new_session=True,
        text=True,
        errors="replace",
    )

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    alarm = threading.Timer(max(deadline - time.monotonic(), 0.0), end)
    alarm.start()
    lines: list[str] = []
    try:
        for line in child.stdout or ():
            lines = [*lines[-_KEPT_LINES:], line.strip()]
            on_line(line.rstrip())
        code = child.wait()
    finally:
        alarm.cancel()
        if child.poll() is None:
            end()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    if code == -signal.SIGKILL and time.monotonic() >= deadline:
        raise DeadlineExceeded("pip took longer than it may: raise --timeout, or bring the packages nearer")
    return lines, code
