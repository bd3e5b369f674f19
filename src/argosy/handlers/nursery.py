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

from argosy.handlers.nursery_process import NurseryGone, NurseryProcess
from argosy.handlers.options import HandlerOptions, worker_environment
from argosy.handlers.processes import WorkerProcess, spawn
from argosy.handlers.worker.messages import Refused

_LOG = logging.getLogger(__name__)


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
        self._retired: list[NurseryProcess] = []

    async def start_worker(self, packages: Path | None, imports: tuple[str, ...]) -> StartedWorker:
        """A worker that may import from `packages`. Cancels: leaves no worker. Raises: EngineError."""
        ours, theirs = socket.socketpair()
        readable, writable = os.pipe()
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
        ending = [*self._processes.values(), *self._retired]
        self._processes.clear()
        self._retired.clear()
        await asyncio.gather(*(process.close() for process in ending))

    async def _start(
        self, packages: Path | None, imports: tuple[str, ...], theirs: socket.socket, output: int
    ) -> WorkerProcess:
        if self.options.shares_imports:
            is_heavy = bool(imports)
            try:
                found = await self._nursery(packages, is_heavy=is_heavy).fork(imports, theirs, output)
            except NurseryGone:
                found = await self._nursery(packages, is_heavy=is_heavy).fork(imports, theirs, output)
            if isinstance(found, WorkerProcess):
                return found
            self._tell(found)
        return spawn(self.options.python, self._environment, theirs, output)

    def _nursery(self, packages: Path | None, *, is_heavy: bool) -> NurseryProcess:
        key = (packages, is_heavy)
        process = self._processes.get(key)
        if process is not None and not process.is_alive:
            self._retired.append(process)
            process = None
        if process is None:
            process = self._processes[key] = NurseryProcess(self.options.python, self._environment, packages)
        return process

    @staticmethod
    def _tell(refused: Refused) -> None:
        _LOG.info("a worker shares no imports", extra={"reason": refused.reason})
