"""Process groups: how they are started, known again, watched and ended.

A pid alone names nobody, as the kernel gives it out again. Pid, start time and boot id together name one process for
ever; the token in its environment says whose it is. The end of a process is noticed at once through a pidfd, whether
it is our child or one that an earlier control plane left to us. Replicas lead sessions of their own, so a signal to
our terminal does not reach them, and they are ended as groups: what they started goes with them.
Source: proc(5) `/proc/pid/stat`, pidfd_open(2), setsid(2).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

TOKEN_VARIABLE = "ARGOSY_REPLICA"
_PROC = Path("/proc")
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GONE_STATES = frozenset({"Z", "X"})


class ProcessIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """One process for ever. start_ticks: clock ticks after boot at which it began."""

    pid: int
    start_ticks: int
    boot_id: str


class TokenBearer(msgspec.Struct, frozen=True, kw_only=True):
    """A living process of ours. is_leader: it leads its session, so we started it ourselves."""

    identity: ProcessIdentity
    token: str
    is_leader: bool


class Stat(msgspec.Struct, frozen=True, kw_only=True):
    """A line of /proc/pid/stat, as far as we need it. Ticks and pages in the kernel's own units."""

    pid: int
    state: str
    group: int
    session: int
    start_ticks: int
    cpu_ticks: int
    resident_pages: int


def boot_id() -> str:
    """What names this run of the kernel."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def read_stat(pid: int) -> Stat | None:
    """The process now; None if it is gone, or only waits to be reaped."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name in brackets may hold anything, brackets and spaces too. Fields count from 3 after it: proc(5).
    fields = text[text.rindex(")") + 2 :].split()
    stat = Stat(
        pid=pid,
        state=fields[0],
        group=int(fields[2]),
        session=int(fields[3]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start_ticks=int(fields[19]),
        resident_pages=int(fields[21]),
    )
    return None if stat.state in _GONE_STATES else stat


def all_stats() -> Iterator[Stat]:
    """Every process of the machine that we may see."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := read_stat(int(entry.name))) is not None:
            yield stat


def token_bearers(prefix: str) -> list[TokenBearer]:
    """Living processes whose environment carries a token that begins so."""
    found = []
    wanted = f"{TOKEN_VARIABLE}={prefix}".encode()
    boot = boot_id()
    for stat in all_stats():
        try:
            environment = (_PROC / str(stat.pid) / "environ").read_bytes()
        except OSError:
            continue
        for entry in environment.split(b"\0"):
            if entry.startswith(wanted):
                token = entry.partition(b"=")[2].decode(errors="replace")
                identity = ProcessIdentity(pid=stat.pid, start_ticks=stat.start_ticks, boot_id=boot)
                found.append(TokenBearer(identity=identity, token=token, is_leader=stat.session == stat.pid))
    return found


def spawn(argv: Sequence[str], environment: Mapping[str, str], log: Path, stdin: int | None = None) -> ProcessIdentity:
    """Start a process that leads its own session; output is appended to `log`. No shell is involved (D-38).

    stdin: a descriptor to read from; None = nothing. Raises: OSError if it cannot be started.
    """
    reads = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        argv[0],
        list(argv),
        dict(environment),
        file_actions=[reads, (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)],
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULT_SIGNALS,
    )
    stat = read_stat(pid)
    # A child that ended already waits to be reaped by us, so nobody else can have its pid.
    return ProcessIdentity(pid=pid, start_ticks=stat.start_ticks if stat else 0, boot_id=boot_id())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs."""
    stat = read_stat(identity.pid)
    return stat is not None and stat.start_ticks == identity.start_ticks


class Process:
    """The leader of a group of ours, watched until it ends. `on_exit` is called once, on the event loop.

    exit_code: as subprocess has it, negative for a signal; None while it runs, or if it was not our child.
    """

    def __init__(self, identity: ProcessIdentity, token: str, on_exit: Callable[[], None]) -> None:
        """Raises: ProcessLookupError if that process is gone."""
        self.identity = identity
        self.token = token
        self.on_exit = on_exit
        self.exit_code: int | None = None
        self.has_exited = False
        self._pidfd = os.pidfd_open(identity.pid)
        stat = read_stat(identity.pid)
        if identity.start_ticks and stat is not None and stat.start_ticks != identity.start_ticks:
            os.close(self._pidfd)
            raise ProcessLookupError(f"pid {identity.pid} is another process now")
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    @property
    def pid(self) -> int:
        """The leader's pid, which is also the group's."""
        return self.identity.pid

    def terminate(self) -> None:
        """Ask the leader to end; what it started is its own to end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End the leader now; the rest of the group is ended when its end has been noticed."""
        self._send(signal.SIGKILL)

    def members(self) -> list[int]:
        """Living processes of the group."""
        return [stat.pid for stat in all_stats() if stat.group == self.pid]

    def pin(self, cores: Sequence[int]) -> None:
        """Let the group run on these cores only: every thread there is, and so every one they start."""
        for pid in self.members():
            with suppress(OSError):
                for thread in (_PROC / str(pid) / "task").iterdir():
                    os.sched_setaffinity(int(thread.name), cores)

    def close(self) -> None:
        """Stop watching; the process goes on. Idempotent."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _send(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _ended(self) -> None:
        self.close()
        self._end_group()
        with suppress(ChildProcessError):
            _, status = os.waitpid(self.pid, os.WNOHANG)
            self.exit_code = os.waitstatus_to_exitcode(status)
        self.has_exited = True
        self.on_exit()

    def _end_group(self) -> None:
        """Before the leader is reaped: until then nobody else can have its number, so the group is surely ours."""
        if os.getpgrp() == self.pid:
            return
        is_ours = _is_child(self.pid) or bool(token_bearers(self.token))
        if is_ours:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def _is_child(pid: int) -> bool:
    """Whether the ended process waits to be reaped by us."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def kill_group_of(pid: int) -> None:
    """End the whole group a process is in, whoever leads it."""
    with suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(pid)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
