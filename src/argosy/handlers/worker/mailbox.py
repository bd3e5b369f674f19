"""A worker's end of its socket: commands in, one at a time; events out, blocking while the server is behind."""

from __future__ import annotations

import socket

from argosy.core.errors import EngineError
from argosy.handlers.worker.messages import COMMANDS, HEADER, MAX_FRAME_BYTES, Command, Event, frame


class Mailbox:
    """Commands in, events out, over one stream socket. Used by one thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def take(self) -> Command:
        """The next command; waits for it. Raises: EOFError when the server is gone."""
        (size,) = HEADER.unpack(self._read(HEADER.size))
        if size > MAX_FRAME_BYTES:
            raise EngineError(f"a frame of {size} bytes came from the server; at most {MAX_FRAME_BYTES} may")
        command: Command = COMMANDS.decode(self._read(size))
        return command

    def send(self, event: Event) -> None:
        """Raises: OSError when the server is gone, EngineError if the event is too long."""
        self._connection.sendall(frame(event))

    def _read(self, size: int) -> bytearray:
        body = bytearray(size)
        view = memoryview(body)
        done = 0
        while done < size:
            count = self._connection.recv_into(view[done:])
            if count == 0:
                raise EOFError
            done += count
        return body
