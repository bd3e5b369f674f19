"""What the backend must know again after its process is gone: what was asked for, and which processes are ours.

    ROOT/lock               held while a backend is open: two would start everything twice
    ROOT/identity           a name for this directory, so that its processes can be told from another's
    ROOT/workloads/NAME     what was applied last
    ROOT/replicas/NAME      one record per replica, written before its process starts

A file is replaced whole or not at all. Nothing is flushed to the disk: after the machine itself has gone down there is
no process left to find again, and what shall run is kept durably by the control plane's store.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from argosy.backends.local.placement import Grant
from argosy.backends.local.processes import ProcessIdentity
from argosy.core.errors import BackendError
from argosy.core.workload import Workload

logger = logging.getLogger(__name__)


class ReplicaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as it must be known again.

    workload: what its process was started from. token: what its process carries in its environment; new with each
    start. process: None between the intent to start one and its start. start_number: 1 = the first.
    drained_at, told_at: monotonic seconds at which it was to end, and was sent SIGTERM; they hold for the run of the
    kernel of its process.
    started_at, ready_at: unix seconds.
    """

    name: str
    order: int
    workload: Workload
    token: str = ""
    port: int = 0
    process: ProcessIdentity | None = None
    grant: Grant = Grant()
    start_number: int = 0
    restarts: int = 0
    crashes: int = 0
    last_exit_code: int | None = None
    is_spare: bool = False
    started_at: float | None = None
    ready_at: float | None = None
    start_seconds: dict[str, float] = {}
    drained_at: float | None = None
    told_at: float | None = None


T = TypeVar("T")


class Records:
    """The files of one backend. Every method may raise BackendError, naming the file and what to do."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._workloads = root / "workloads"
        self._replicas = root / "replicas"
        self._lock = -1

    def open(self) -> str | None:
        """Make the directories and take the lock; the identity, or None if another one has the lock now.

        A process that is killed while it starts a replica leaves the lock to the child until that runs its own program
        and so carries its token: what cannot be found yet also keeps the next one from looking. Raises: BackendError.
        """
        try:
            for directory in (self._workloads, self._replicas):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise self._unusable(exc) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        self._lock = lock
        return self._identity()

    def close(self) -> None:
        """Give the lock back. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def save_workload(self, workload: Workload) -> None:
        """Remember what was asked for."""
        self._write(self._workloads / workload.name, msgspec.json.encode(workload))

    def save_replica(self, record: ReplicaRecord) -> None:
        """Remember a replica."""
        self._write(self._replicas / record.name, msgspec.json.encode(record))

    def forget_workload(self, name: str) -> None:
        """It is not asked for any more."""
        self._remove(self._workloads / name)

    def forget_replica(self, name: str) -> None:
        """It is gone."""
        self._remove(self._replicas / name)

    def workloads(self) -> list[Workload]:
        """What was asked for."""
        return list(self._read(self._workloads, Workload))

    def replicas(self) -> list[ReplicaRecord]:
        """All that may run, the oldest first."""
        return sorted(self._read(self._replicas, ReplicaRecord), key=lambda each: each.order)

    def _identity(self) -> str:
        path = self._root / "identity"
        if not path.exists():
            self._write(path, secrets.token_hex(8).encode())
        return path.read_text().strip()

    def _read(self, directory: Path, kind: type[T]) -> Iterator[T]:
        for path in sorted(directory.iterdir()):
            if path.name.startswith("."):
                path.unlink(missing_ok=True)
                continue
            try:
                yield msgspec.json.decode(path.read_bytes(), type=kind)
            except msgspec.DecodeError as exc:
                # Its processes, if there are any, are found by their token and ended.
                logger.warning("record cannot be read", extra={"path": str(path), "error": str(exc)})
                path.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        aside = path.with_name(f".{path.name}.aside")
        try:
            aside.write_bytes(content)
            aside.replace(path)
        except OSError as exc:
            raise self._unusable(exc) from exc

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            raise self._unusable(exc) from exc

    def _unusable(self, exc: OSError) -> BackendError:
        where = exc.filename or self._root
        return BackendError(
            f"the backend's directory cannot be used ({where}: {exc.strerror}): "
            "make room or set it right, or choose another --state directory"
        )
