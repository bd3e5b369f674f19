"""Commands, and the control plane they find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from live_control import LiveControl

from argosy.cli.loop_thread import LoopThread
from argosy.cli.main import run


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


class Cloud:
    """A control plane that commands find by its state directory, and the commands."""

    def __init__(self, control: LiveControl, thread: LoopThread, capsys: pytest.CaptureFixture[str]) -> None:
        self.control, self.thread, self._capsys = control, thread, capsys

    def run(self, *arguments: str) -> Ended:
        """One command line."""
        self._capsys.readouterr()
        code = run(list(arguments))
        return Ended(code, *self._capsys.readouterr())

    def done(self, *arguments: str) -> Ended:
        """One command line that must succeed."""
        ended = self.run(*arguments)
        assert ended.code == 0, ended.err
        return ended

    def until(self, holds: Callable[[], bool]) -> None:
        """Return once it holds."""
        self.thread.run(self.control.until(holds))
