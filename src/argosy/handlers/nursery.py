"""Where workers come from: one nursery process for each set of packages, started when its first worker is.

Models without heavy libraries have a nursery of their own, so that none of them waits while another imports PyTorch.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

import msgspec

from argosy.core.errors import OutOfResources
from argosy.handlers.nursery_process import NurseryBroke, NurseryGone, NurseryProcess
from argosy.handlers.options import HandlerOptions, worker_environment
from argosy.handlers.processes import WorkerProcess, spawn
from argosy.handlers.worker.messages import Refused

_LOG = logging.getLogger(__name__)
# How often a start that its nursery did not live through is asked of another one.
_MAX_NURSERIES = 3


class StartedWorker(msgspec.Struct, frozen=True):
    """A worker that waits for its archive. connection: our end of its socket. output: where its lines can be read."""

    process: WorkerProcess
    connection: socket.socket
    output: int


class Nursery:
    """Starts workers for a whole server."""

    def __init__(self, options: HandlerOptions | None = None) -> None:
        self.options = options or HandlerOptions()
        self._environment = worker_environment(self.options)
        self._processes: dict[tuple[Path | None, bool], NurseryProcess] = {}
        # Imports after which a nursery lived, and those over which one ended: another would again, and take the workers
        # of other models with it.
        self._proven: set[tuple[Path | None, tuple[str, ...]]] = set()
        self._unsafe: set[tuple[Path | None, tuple[str, ...]]] = set()

    async def start_worker(self, packages: Path | None, imports: tuple[str, ...]) -> StartedWorker:
        """A worker that may import from `packages`. Cancels: leaves no worker. Raises: EngineError, OutOfResources."""
        ours, theirs, readable, writable = _ends()
        try:
            process = await self._start(packages, imports, theirs, writable)
        except BaseException:  # whatever happened, also a cancellation: nothing is left
            ours.close()
            os.close(readable)
            raise
        finally:
            theirs.close()
            os.close(writable)
        return StartedWorker(process, ours, readable)

    async def close(self) -> None:
        """End every nursery, and with them the workers that are left. Idempotent."""
        ending = list(self._processes.values())
        self._processes.clear()
        await asyncio.gather(*(process.close() for process in ending))

    async def _start(
        self, packages: Path | None, imports: tuple[str, ...], theirs: socket.socket, output: int
    ) -> WorkerProcess:
        asked = (packages, imports)
        is_shared = self.options.shares_imports and asked not in self._unsafe
        for _ in range(_MAX_NURSERIES if is_shared else 0):
            try:
                found = await self._nursery(packages, is_heavy=bool(imports)).fork(imports, theirs, output)
            except NurseryGone:
                continue
            except NurseryBroke as exc:
                if not imports or asked in self._proven:
                    continue
                self._unsafe.add(asked)
                found = Refused(exc.message)
            if isinstance(found, WorkerProcess):
                self._proven.add(asked)
                return found
            _LOG.info("a worker shares no imports", extra={"reason": found.reason})
            break
        return spawn(self.options.python, self._environment, theirs, output)

    def _nursery(self, packages: Path | None, *, is_heavy: bool) -> NurseryProcess:
        key = (packages, is_heavy)
        process = self._processes.get(key)
        if process is None or not process.is_alive:
            process = self._processes[key] = NurseryProcess(self.options.python, self._environment, packages)
        return process


def _ends() -> tuple[socket.socket, socket.socket, int, int]:
    """Both ends of a worker's socket, and of the pipe for its lines. Raises: OutOfResources."""
    try:
        ours, theirs = socket.socketpair()
        try:
            readable, writable = os.pipe()
        except OSError:
            ours.close()
            theirs.close()
            raise
    except OSError as exc:
        raise OutOfResources(f"the server has no descriptors left for another worker: {exc.strerror}") from exc
    return ours, theirs, readable, writable
