"""Warm processes: each has everything imported that a replica of `argosy serve` needs and waits for a model.

Half of a replica's start is the same for every model: the interpreter, imports, the engine's native libraries. A
standby has done that before anybody waits. It leads its own session and carries a token like any replica; when a
replica starts, one line on its stdin makes it that replica. Without that line it ends with us, by the end of its
stdin. A used one is replaced when no replica is starting, so that two starts do not share the cores.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from argosy.backends.local.processes import Process, kill_group_of, spawn
from argosy.core.workload import Workload

logger = logging.getLogger(__name__)

_SERVE = "serve"
_STANDBY = "standby"
_MAX_FAILURES = 3
_OPENVINO = "openvino"

Program = tuple[str, ...]


def standby_program(workload: Workload) -> Program | None:
    """The program whose standby can become this workload's replica; None if there is no such thing.

    Only `argosy serve` on the default engine: a standby has its libraries loaded, and its environment can not be
    changed any more.
    """
    argv = workload.argv
    if _SERVE not in argv or workload.env or workload.resources.gpus or workload.resources.gpu_memory_bytes:
        return None
    program = argv[: argv.index(_SERVE)]
    is_argosy = program[-2:] == ("-m", "argosy.cli.main") or [Path(word).name for word in program] == ["argosy"]
    return program if is_argosy and _engine(argv) == _OPENVINO else None


def _engine(argv: tuple[str, ...]) -> str:
    for flag, value in zip(argv, (*argv[1:], ""), strict=True):
        if flag == "--engine":
            return value
        if flag.startswith("--engine="):
            return flag.partition("=")[2]
    return _OPENVINO


class Standby:
    """One warm process and the end of its stdin."""

    def __init__(self, process: Process, stdin: int, log: Path) -> None:
        self.process = process
        self.log = log
        self._stdin = stdin

    def become(self, argv: Iterable[str]) -> None:
        """Make it what `argv` says. Raises: OSError if it is gone."""
        try:
            os.write(self._stdin, msgspec.json.encode({"argv": list(argv)}) + b"\n")
        finally:
            self.dismiss()

    def dismiss(self) -> None:
        """Close its stdin: without a role it ends. Idempotent."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1


class StandbyPool:
    """Up to `size` warm processes of each program. new_token: a token for one more process, and where it writes."""

    def __init__(self, size: int, new_token: Callable[[], tuple[str, dict[str, str], Path]]) -> None:
        self._size = size
        self._new_token = new_token
        self._waiting: dict[Program, list[Standby]] = {}
        self._failures: dict[Program, int] = {}

    def take(self, program: Program) -> Standby | None:
        """The oldest one of the program, now the caller's; None if there is none."""
        waiting = self._waiting.get(program, [])
        return waiting.pop(0) if waiting else None

    def fill(self, programs: set[Program]) -> None:
        """Keep `size` of each of these programs and none of others."""
        for program in [each for each in self._waiting if each not in programs]:
            for standby in self._waiting.pop(program):
                standby.dismiss()
        for program in sorted(programs):
            waiting = self._waiting.setdefault(program, [])
            while len(waiting) < self._size and self._failures.get(program, 0) < _MAX_FAILURES:
                self._start(program)

    def close(self) -> None:
        """End all that still wait."""
        for waiting in self._waiting.values():
            for standby in waiting:
                standby.dismiss()
                kill_group_of(standby.process.pid)
                standby.process.close()
        self._waiting.clear()

    def tokens(self) -> set[str]:
        """Of those that wait."""
        return {each.process.token for waiting in self._waiting.values() for each in waiting}

    def _start(self, program: Program) -> None:
        token, environment, log = self._new_token()
        reading, writing = os.pipe()
        try:
            identity = spawn((*program, _STANDBY), environment, log, stdin=reading)
        except OSError as exc:
            os.close(writing)
            self._failures[program] = _MAX_FAILURES
            logger.warning("standby cannot start", extra={"program": " ".join(program), "error": str(exc)})
            return
        finally:
            os.close(reading)
        standby = Standby(Process(identity, token, lambda: None), writing, log)
        standby.process.on_exit = lambda: self._ended(program, standby)
        self._waiting[program].append(standby)

    def _ended(self, program: Program, standby: Standby) -> None:
        """One ended that nobody told to: a program that cannot do it is not tried for ever."""
        standby.dismiss()
        with suppress(OSError):
            standby.log.unlink(missing_ok=True)
        waiting = self._waiting.get(program, [])
        if standby in waiting:
            waiting.remove(standby)
            self._failures[program] = self._failures.get(program, 0) + 1
            logger.warning("standby ended", extra={"program": " ".join(program)})
