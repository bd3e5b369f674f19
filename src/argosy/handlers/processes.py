"""One worker process as the event loop sees it: how it is started alone, when it ends, why, and how it is ended.

Its end is noticed at once through a pidfd, whoever its parent is; a signal sent through that can meet no other process.
Source: pidfd_open(2), proc(5).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from argosy.core.child_module import module_command
from argosy.core.errors import EngineError

_REASON_SECONDS = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class WorkerProcess:
    """A worker, ours or a nursery's child. on_exit is called once, on the event loop."""

    def __init__(self, pid: int, pidfd: int, child: subprocess.Popen[bytes] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.on_exit: Callable[[], None] = lambda: None
        self._pidfd = pidfd
        self._child = child
        self._ended = asyncio.Event()
        self._code: asyncio.Future[int] = loop.create_future()
        loop.add_reader(pidfd, self._exited)

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._ended.is_set()

    def set_code(self, code: int) -> None:
        """What its parent saw of its end: an exit code, negative for a signal."""
        if not self._code.done():
            self._code.set_result(code)

    async def exit_code(self) -> int | None:
        """How it ended; waits a short while for its parent to say so. None if that is not known."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._code), _REASON_SECONDS)
        except TimeoutError:
            return None

    async def wait(self) -> None:
        """Until it is gone."""
        await self._ended.wait()

    def kill(self) -> None:
        """End it now, whatever it does."""
        if not self.has_ended:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _exited(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set()
        if self._child is not None:
            # Until it is reaped nobody else can have its number, so the group is surely its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.set_code(self._child.wait())
        self.on_exit()


def spawn(python: str, environment: Mapping[str, str], theirs: socket.socket, output: int) -> WorkerProcess:
    """A worker as a process of its own, with memory of its own. Raises: EngineError if it cannot start."""
    argv = module_command(python, "argosy.handlers.worker.main", str(theirs.fileno()))
    try:
        child = subprocess.Popen(  # noqa: S603 - our own module
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            pass_fds=(theirs.fileno(),),
        )
        return WorkerProcess(child.pid, os.pidfd_open(child.pid), child)
    except OSError as exc:
        raise EngineError(f"a worker's process cannot start: {exc}") from exc


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger holds the process still."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    # The name in brackets may hold anything, brackets and spaces too.
    return text[text.rindex(")") + 2] in "Tt"


def resident_bytes(pid: int) -> int:
    """Memory the process has in place, shared pages included; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def count_oom_kills() -> int:
    """How many processes this machine's kernel has ended for want of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
