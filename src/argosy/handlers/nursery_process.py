"""One nursery process as the server sees it: packets that ask for a worker, packets that tell of one.

Descriptors travel with the packets (SCM_RIGHTS), so a worker's socket has no name in any file system. Source: unix(7).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from argosy.core.child_module import module_command
from argosy.core.errors import EngineError, OutOfResources
from argosy.handlers.processes import WorkerProcess, is_stopped
from argosy.handlers.worker.messages import MAX_PACKET_BYTES, NURSERY_EVENTS, Exited, Fork, Forked, Refused, packet

_STDERR = 2
_EXIT_SECONDS = 2.0
# More starts than its socket holds would find it full; they wait here.
_MAX_PENDING_FORKS = 16
_LOOK_SECONDS = 0.5


class NurseryGone(EngineError):
    """It ended before it came to this start; another one can be asked."""


class NurseryBroke(EngineError):
    """It ended over this start: its imports may be what ended it."""


class NurseryProcess:
    """A process of `worker/nursery.py`, from start to end. Raises on starting: EngineError."""

    def __init__(self, python: str, environment: Mapping[str, str], packages: Path | None) -> None:
        """packages: the directory of one archive's requirements, None = the installation alone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        argv = module_command(python, "argosy.handlers.worker.nursery", str(theirs.fileno()), str(packages or ""))
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    argv,
                    stdin=subprocess.DEVNULL,
                    # What libraries print when imported is not the server's output.
                    stdout=_STDERR,
                    env=dict(environment),
                    pass_fds=(theirs.fileno(),),
                )
            except OSError as exc:
                ours.close()
                raise EngineError(f"the nursery of workers cannot start: {exc}") from exc
        self._control = ours
        self._pending: deque[asyncio.Future[WorkerProcess | Refused]] = deque()
        self._room = asyncio.Semaphore(_MAX_PENDING_FORKS)
        self._workers: dict[int, WorkerProcess] = {}
        self._was_held = False
        self.is_alive = True
        asyncio.get_running_loop().add_reader(ours, self._readable)

    async def fork(self, imports: tuple[str, ...], theirs: socket.socket, output: int) -> WorkerProcess | Refused:
        """A worker with that socket and output, once the imports are done. Raises: NurseryGone, NurseryBroke.

        Cancels: the worker may still start; it ends when its socket does.
        """
        async with self._room:
            if not self.is_alive:
                raise NurseryGone("the nursery of workers has ended")
            reply: asyncio.Future[WorkerProcess | Refused] = asyncio.get_running_loop().create_future()
            try:
                socket.send_fds(self._control, [packet(Fork(imports=imports))], [theirs.fileno(), output])
            except OSError as exc:
                self._ended()
                raise NurseryGone(f"the nursery of workers takes no request: {exc}") from exc
            self._pending.append(reply)
            try:
                return await self._replied(reply)
            finally:
                reply.cancel()

    async def _replied(self, reply: asyncio.Future[WorkerProcess | Refused]) -> WorkerProcess | Refused:
        """The reply; a nursery that is held still meanwhile is ended, as whoever waits for it would wait for ever."""
        was_stopped = False
        while True:
            await asyncio.wait((reply,), timeout=_LOOK_SECONDS)
            if reply.done():
                return reply.result()
            stopped = is_stopped(self._process.pid)
            if stopped and was_stopped:
                self._was_held = True
                self._process.kill()
            was_stopped = stopped

    async def close(self) -> None:
        """End it and the workers it still has. Idempotent."""
        self._lost()
        try:
            await asyncio.to_thread(self._process.wait, _EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _readable(self) -> None:
        try:
            body, descriptors, _, _ = socket.recv_fds(self._control, MAX_PACKET_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            body, descriptors = b"", []
        if not body:
            self._ended()
            return
        event = NURSERY_EVENTS.decode(body)
        if isinstance(event, Exited):
            worker = self._workers.pop(event.pid, None)
            if worker is not None:
                worker.set_code(event.code)
            return
        self._reply(event, descriptors)

    def _reply(self, event: Forked | Refused, descriptors: list[int]) -> None:
        reply = self._pending.popleft()
        if reply.done():
            for each in descriptors:
                os.close(each)
            return
        if isinstance(event, Refused):
            reply.set_result(event)
            return
        if not descriptors:
            # The worker leaves as soon as its socket is closed, which whoever waits does now.
            reply.set_exception(OutOfResources("the server has no descriptor left for another worker: raise its limit"))
            return
        os.set_inheritable(descriptors[0], False)
        worker = WorkerProcess(event.pid, descriptors[0])
        self._workers[event.pid] = worker
        reply.set_result(worker)

    def _ended(self) -> None:
        """It closed its end, which it does only by ending: this waits for no more than that."""
        self._lost()
        self._process.kill()
        self._process.wait()

    def _lost(self) -> None:
        """It has ended, or shall: the end of its socket ends it."""
        if not self.is_alive:
            return
        self.is_alive = False
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        for place, reply in enumerate(self._pending):
            if not reply.done():
                kind = NurseryGone if place or self._was_held else NurseryBroke
                reply.set_exception(kind("the nursery of workers ended while it started one"))
        self._pending.clear()
        for worker in self._workers.values():
            # The kernel ends them with it, and nobody is left to say how they ended.
            worker.set_code(-signal.SIGKILL)
        self._workers.clear()
