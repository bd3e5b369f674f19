"""Replicas' logs: one file per start, written by the process itself, so that a log goes on without us.

    LOGS/WORKLOAD/REPLICA/0001.log      the first start; 0002.log the second
    LOGS/WORKLOAD/REPLICA/0001.log.1    what was moved out of it when it had become too large

A file that is too large is copied and emptied in place, as its writer keeps it open; lines written in the moment
between the two are lost. The last starts of a replica and the last replicas of a workload are kept.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from argosy.core.errors import NotFound

MAX_FILE_BYTES = 16 * 2**20
KEPT_STARTS = 5
KEPT_REPLICAS = 20
TAIL_LINES = 20
_TAIL_BYTES = 32 * 2**10
_CHUNK_BYTES = 64 * 2**10
_POLL_SECONDS = 0.1


class LogFiles:
    """The logs below one directory. Names are checked by whoever calls: they become paths."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, workload: str, replica: str, start_number: int) -> Path:
        """Where this start's output goes; its directory exists after this."""
        directory = self._root / workload / replica
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in sorted(directory.glob("*.log"), key=_age)[: -KEPT_STARTS + 1]:
            old.unlink(missing_ok=True)
            old.with_suffix(".log.1").unlink(missing_ok=True)
        return directory / f"{start_number:04}.log"

    def waiting_path(self, token: str) -> Path:
        """Where a standby process writes until it has a replica's name: then its file is renamed."""
        directory = self._root / ".standby"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return directory / f"{token.rpartition('/')[2]}.log"

    def tail(self, workload: str, replica: str) -> tuple[str, ...]:
        """The last lines of the last start."""
        files = self._files(workload, replica)
        if not files:
            return ()
        with files[-1].open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
        return tuple(lines[-TAIL_LINES:])

    async def lines(self, workload: str, replica: str, *, is_over: Callable[[], bool]) -> AsyncGenerator[str]:
        """All lines, oldest first, then new ones until `is_over`. Raises: NotFound. Cancels: stops reading."""
        if not await asyncio.to_thread(self._files, workload, replica):
            raise NotFound(f"replica {replica!r} of workload {workload!r} has no log: `argosy get` lists replicas")
        place = _Place()
        while True:
            # Asked before reading: what was written until it was over is still read.
            was_over = is_over()
            place, lines = await asyncio.to_thread(self._read_on, workload, replica, place, was_over)
            for line in lines:
                yield line
            if not lines:
                if was_over:
                    return
                await asyncio.sleep(_POLL_SECONDS)

    def rotate(self, max_bytes: int = MAX_FILE_BYTES) -> None:
        """Move the content of every file that is too large aside."""
        for path in self._root.glob("*/*/*.log"):
            with suppress(OSError):
                if path.stat().st_size > max_bytes:
                    shutil.copyfile(path, path.with_suffix(".log.1"))
                    os.truncate(path, 0)

    def prune(self, workload: str, living: Sequence[str]) -> None:
        """Drop the logs of the workload's oldest replicas that are gone."""
        directory = self._root / workload
        with suppress(OSError):
            gone = [each for each in directory.iterdir() if each.name not in living]
            gone.sort(key=lambda each: each.stat().st_mtime)
            for old in gone[:-KEPT_REPLICAS]:
                shutil.rmtree(old, ignore_errors=True)

    def remove(self, workload: str) -> None:
        """Drop all logs of a workload that is gone."""
        shutil.rmtree(self._root / workload, ignore_errors=True)

    def _files(self, workload: str, replica: str) -> list[Path]:
        """Oldest first: what was moved out of a file stands before it."""
        return sorted((self._root / workload / replica).glob("*.log*"), key=_age)

    def _read_on(self, workload: str, replica: str, place: _Place, is_last: bool) -> tuple[_Place, list[str]]:
        """The next lines, as one bounded piece. A line without an end waits for it, unless none can come."""
        files = [path for path in self._files(workload, replica) if _age(path) >= place.age]
        for path in files:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                # Behind the end: the file was emptied meanwhile.
                offset = place.offset if _age(path) == place.age and place.offset <= size else 0
                file.seek(offset)
                chunk = file.read(_CHUNK_BYTES)
            whole = chunk.rfind(b"\n") + 1
            if not whole and (is_last or path != files[-1] or len(chunk) == _CHUNK_BYTES):
                whole = len(chunk)
            if whole:
                lines = chunk[:whole].decode(errors="replace").splitlines()
                return _Place(age=_age(path), offset=offset + whole), lines
        return place, []


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """How far a reader has come."""

    age: tuple[int, int] = (0, 0)
    offset: int = 0


def _age(path: Path) -> tuple[int, int]:
    number = path.name.partition(".")[0]
    return int(number) if number.isdigit() else 0, 0 if path.suffix == ".1" else 1
