"""The child process as the event loop sees it: commands out, events in, and the moment it dies.

A child can be started before anybody knows what model it will load (`start_ahead`): its imports are then done when a
replica is asked for, and the first channel that opens takes it.

Shapes: one `on_event` call per message, on the event loop; one `on_death` call, with the reason, at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable

import msgspec

from argosy.core.errors import EngineError
from argosy.engines.openvino.messages import Command, Event, FrameBuffer, encode

_DECODER = msgspec.msgpack.Decoder(Event)
_EXIT_SECONDS = 5.0


class Child(msgspec.Struct, frozen=True):
    """A process of `worker.py` and our end of the socket to it."""

    process: subprocess.Popen[bytes]
    connection: socket.socket


# The one that was started ahead. It belongs to this process, as the standby's role does.
_AHEAD: deque[Child] = deque()


def start_ahead() -> None:
    """Start a child for the first channel that will open. Raises: OSError."""
    _AHEAD.append(_start_child())


def _start_child() -> Child:
    ours, theirs = socket.socketpair()
    with theirs:
        argv = [sys.executable, "-m", "argosy.engines.openvino.worker", str(theirs.fileno())]
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),))  # noqa: S603 - our own module
        except OSError:
            ours.close()
            raise
    return Child(process, ours)


class Channel(asyncio.Protocol):
    """One child and the socket to it."""

    def __init__(self, on_event: Callable[[Event], None], on_death: Callable[[str], None]) -> None:
        self._on_event = on_event
        self._on_death = on_death
        self._buffer = FrameBuffer()
        self._transport: asyncio.WriteTransport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closing = False

    @property
    def pid(self) -> int | None:
        """The child's process id, once it runs."""
        return self._process.pid if self._process else None

    async def open(self) -> None:
        """Start the child. Cancels: leaves nothing running. Raises: EngineError if it cannot start."""
        try:
            child = _AHEAD.popleft() if _AHEAD else _start_child()
            self._process = child.process
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_unix_connection(lambda: self, sock=child.connection)
        except OSError as exc:
            raise EngineError(f"the engine's process cannot start: {exc}") from exc

    def send(self, command: Command) -> None:
        """Queue the command for the child's next step. After the child's death it goes nowhere."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(command))

    def data_received(self, data: bytes) -> None:
        """Bytes from the child."""
        for body in self._buffer.push(data):
            self._on_event(_DECODER.decode(body))

    def connection_lost(self, exc: Exception | None) -> None:
        """The child closed its end, which it does only by ending."""
        if not self._is_closing:
            self._on_death(f"its process ended unexpectedly{': ' + str(exc) if exc else ''}")

    def kill(self) -> None:
        """End the child now, whatever it does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def exit_reason(self) -> str:
        """How the child ended, in words; waits for the end a short while."""
        if self._process is None:
            return "its process never started"
        try:
            code = await asyncio.to_thread(self._process.wait, _EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return "its process does not end"
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{hint}"
        return f"its process ended with exit code {code}"

    async def close(self) -> None:
        """Let the child end, kill it if it does not. Idempotent. Cancels: the child is killed."""
        self._is_closing = True
        if self._transport is not None:
            self._transport.close()
        if self._process is None:
            return
        try:
            await asyncio.to_thread(self._process.wait, _EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            await asyncio.to_thread(self._process.wait)
        except asyncio.CancelledError:
            self.kill()
            raise
