"""A worker's end of its socket: commands in, in order; events out, blocking while the server is behind.

Before a command is handed out everything that has arrived is looked at, so that a call that was dropped in the meantime
is not begun. While further calls wait, the answers of short ones are sent together: a write wakes the server each time.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque

from argosy.handlers.worker.messages import COMMANDS, Command, Describe, Drop, Event, FrameBuffer, Predict, frame

_RECEIVE_BYTES = 2**18
# Answers are kept for others so long at most, and only while calls have lately been shorter than this.
MAX_HELD_SECONDS = 0.0005


class Mailbox:
    """Commands in, events out, over one stream socket. One thread takes; a handler's threads may send, too."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = FrameBuffer()
        self._commands: deque[Command] = deque()
        self._dropped: set[int] = set()
        self._held = bytearray()
        self._held_since = 0.0
        self._sending = threading.RLock()
        self._long_call_seconds = 0.0

    def take(self) -> Command:
        """The next command; waits for it. A Drop is the call it names, not to be begun. Raises: EOFError, OSError."""
        while self._receive(socket.MSG_DONTWAIT):
            pass
        while not self._commands:
            self.flush()
            self._receive(0)
        command = self._commands.popleft()
        if isinstance(command, Predict | Describe) and command.number in self._dropped:
            self._dropped.discard(command.number)
            return Drop(command.number)
        return command

    def send(self, event: Event) -> None:
        """Send it now. Raises: OSError when the server is gone, EngineError if the event is too long."""
        body = frame(event)
        with self._sending:
            self._held += body
            self.flush()

    def send_soon(self, event: Event, call_seconds: float) -> None:
        """Send it now, or with the next one's if that comes soon. Raises: as send.

        call_seconds: how long its call took.
        """
        now = time.monotonic()
        body = frame(event)
        with self._sending:
            if not self._held:
                self._held_since = now
            self._held += body
        # One long call is remembered: what comes after it may be long, too.
        self._long_call_seconds = max(call_seconds, self._long_call_seconds * 0.99)
        if not self._commands or now - self._held_since + self._long_call_seconds > MAX_HELD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what was kept. Raises: OSError when the server is gone."""
        with self._sending:
            if self._held:
                held, self._held = self._held, bytearray()
                self._connection.sendall(held)

    def _receive(self, flags: int) -> bool:
        """Take in what has arrived; whether there was anything. Raises: EOFError when the server is gone."""
        try:
            chunk = self._connection.recv(_RECEIVE_BYTES, flags)
        except BlockingIOError:
            return False
        if not chunk:
            raise EOFError
        for body in self._buffer.push(chunk):
            command: Command = COMMANDS.decode(body)
            if isinstance(command, Drop):
                self._drop(command.number)
            else:
                self._commands.append(command)
        return True

    def _drop(self, number: int) -> None:
        # One that is not waiting was begun before this was read: its answer is passed over by the server.
        if any(isinstance(each, Predict | Describe) and each.number == number for each in self._commands):
            self._dropped.add(number)
