"""The child process as the event loop sees it: commands out, events in, and the moment it dies.

Shapes: one `on_event` call per message, on the event loop; one `on_death` call, with the reason, at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable

import msgspec

from argosy.core.errors import EngineError
from argosy.engines.openvino.messages import Command, Event, FrameBuffer, encode

_DECODER = msgspec.msgpack.Decoder(Event)
_EXIT_SECONDS = 5.0


class Channel(asyncio.Protocol):
    """One child and the socket to it."""

    def __init__(self, on_event: Callable[[Event], None], on_death: Callable[[str], None]) -> None:
        self._on_event = on_event
        self._on_death = on_death
        self._buffer = FrameBuffer()
        self._transport: asyncio.WriteTransport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._is_closing = False

    @property
    def pid(self) -> int | None:
        """The child's process id, once it runs."""
        return self._process.pid if self._process else None

    async def open(self) -> None:
        """Start the child. Cancels: leaves nothing running. Raises: EngineError if it cannot start."""
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "argosy.engines.openvino.worker",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_unix_connection(lambda: self, sock=ours)
        except OSError as exc:
            ours.close()
            raise EngineError(f"the engine's process cannot start: {exc}") from exc
        finally:
            theirs.close()

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
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def exit_reason(self) -> str:
        """How the child ended, in words; waits for the end a short while."""
        if self._process is None:
            return "its process never started"
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
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
            async with asyncio.timeout(_EXIT_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        except asyncio.CancelledError:
            self.kill()
            raise
