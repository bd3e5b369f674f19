"""The nursery: a clean process with one thread, from which workers are forked with their libraries already imported.

Run as a module with FD and ENVIRONMENT, it takes packets of `messages.py`. No line of an archive runs here: only
libraries by names from the server's own list are imported, so what workers share is what the installation brought. It
ends when the server does, and its workers with it. One start that fails is refused, and costs no other worker.
Why one thread: a fork copies only the thread that forks, and locks that others hold stay locked for ever. If an import
started threads, forking is refused and workers are started as processes of their own.
Source: fork(2), gc.freeze in the Python documentation, waitid(2) WNOWAIT.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from argosy.handlers.worker import main as worker
from argosy.handlers.worker.confinement import stand_apart
from argosy.handlers.worker.messages import FORKS, MAX_PACKET_BYTES, Exited, Fork, Forked, NurseryEvent, Refused, packet


def import_quietly(name: str) -> None:
    """Import a module, or look up an attribute `module:name` that a library imports lazily. Failing is no matter."""
    module, _, attribute = name.partition(":")
    # boundary: a library that cannot be imported, or exits, fails again, and is reported, in the worker that needs it
    with contextlib.suppress(BaseException):
        found = importlib.import_module(module)
        if attribute:
            getattr(found, attribute)


class Nursery:
    """The loop of the process. control: packets from and to the server."""

    def __init__(self, control: socket.socket, alarm: int, bell: int) -> None:
        """alarm, bell: the ends of a pipe into which each signal writes a byte."""
        self._control = control
        self._alarm = alarm
        self._bell = bell
        self._imported: set[str] = set()
        self._workers: set[int] = set()

    def serve(self) -> None:
        """Fork and reap until the server is gone."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._alarm, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._alarm in ready:
                os.read(self._alarm, 4096)
                self._reap()
            if self._control.fileno() in ready:
                body, descriptors, _, _ = socket.recv_fds(self._control, MAX_PACKET_BYTES, 2)
                if not body:
                    return
                self._fork(FORKS.decode(body), descriptors)

    def end_all(self) -> None:
        """End every worker and what it started."""
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    def _fork(self, command: Fork, descriptors: list[int]) -> None:
        if len(descriptors) != 2:
            # The kernel leaves out those for which there is no room.
            self._close(descriptors)
            self._send(Refused("it has no room for another descriptor"))
            return
        for name in command.imports:
            if name not in self._imported:
                import_quietly(name)
                self._imported.add(name)
        num_threads = len(list(Path("/proc/self/task").iterdir()))
        if num_threads > 1:
            self._close(descriptors)
            self._send(Refused(f"its libraries started {num_threads - 1} threads"))
            return
        gc.collect()
        gc.freeze()
        try:
            pid = os.fork()
        except OSError as exc:
            self._close(descriptors)
            self._send(Refused(f"it cannot fork: {exc}"))
            return
        if pid == 0:
            self._become_worker(*descriptors)
        self._close(descriptors)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        self._workers.add(pid)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as exc:
            # Its socket has no other end once the server gives this start up; ended here, it does not even begin.
            os.kill(pid, signal.SIGKILL)
            self._send(Refused(f"it cannot watch over a worker: {exc}"))
            return
        self._send(Forked(pid), [pidfd])
        os.close(pidfd)

    def _become_worker(self, connection: int, output: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._close([self._alarm, self._bell])
            self._control.close()
            gc.enable()
            _reseed()
            worker.run(socket.socket(fileno=connection), output)
        except BaseException:  # noqa: BLE001  # boundary: said on the server's own stderr before the process ends
            traceback.print_exc()
        finally:
            worker.leave(1)

    def _reap(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            # Until it is reaped nobody else can have its number, so the group is surely its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(ended.si_pid, signal.SIGKILL)
            _, status = os.waitpid(ended.si_pid, 0)
            self._workers.discard(ended.si_pid)
            self._send(Exited(ended.si_pid, os.waitstatus_to_exitcode(status)))

    def _send(self, event: NurseryEvent, descriptors: list[int] | None = None) -> None:
        socket.send_fds(self._control, [packet(event)], descriptors or [])

    @staticmethod
    def _close(descriptors: list[int]) -> None:
        for each in descriptors:
            os.close(each)


def _reseed() -> None:
    """numpy's generator was seeded when it was imported; without this all workers would draw the same numbers."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def main(descriptor: int, environment: str) -> NoReturn:
    """Serve until the server closes its end."""
    stand_apart()
    gc.disable()
    sys.dont_write_bytecode = True
    if environment:
        sys.path.insert(0, str(Path(environment)))
    alarm, bell = os.pipe()
    os.set_blocking(bell, False)
    signal.signal(signal.SIGCHLD, lambda number, stack: None)
    signal.set_wakeup_fd(bell)
    nursery = Nursery(socket.socket(fileno=descriptor), alarm, bell)
    try:
        nursery.serve()
    except OSError:
        pass
    finally:
        nursery.end_all()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
