"""The commands, run in this process against a real control plane on a loopback port (`tests/api/live_control.py`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from argosy.cli import terminal
from argosy.cli.loop_thread import LoopThread
from argosy.core.state_dir import ControlAddress, StateDir

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "api"))
from live_cloud import Cloud
from live_control import live_control


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables as a pipe gets them, wherever the tests run."""
    monkeypatch.setattr(terminal.console, "width", terminal.PIPE_WIDTH)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The narrowest terminal there may be."""
    monkeypatch.setattr(terminal.console, "width", terminal.MIN_WIDTH)


@pytest.fixture
def cloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wide: None
) -> Iterator[Cloud]:
    """A control plane without services."""
    state = StateDir(tmp_path / "argosy")
    state.root.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("ARGOSY_API_KEY", raising=False)
    with ExitStack() as stack:
        thread = stack.enter_context(LoopThread())
        control = stack.enter_context(thread.entered(live_control(tmp_path)))
        state.admin_key.write_text(control.key)
        state.control_file.write_bytes(msgspec.json.encode(ControlAddress(url=control.url, process_id=1)))
        yield Cloud(control, thread, capsys)
