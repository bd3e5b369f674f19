"""One light HTTP question to a replica: a status and a short body, or nothing. A new connection each time.

Plain sockets on the event loop: a probe costs a tenth of a millisecond and leaves nothing behind when it is cut off.
"""

from __future__ import annotations

import asyncio
import socket

import msgspec

_MAX_BYTES = 64 * 2**10
_CHUNK_BYTES = 16 * 2**10


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP answer: its status and as much of the body as came with it."""

    status: int
    body: bytes = b""


async def ask(address: tuple[str, int], path: str, seconds: float) -> Answer | None:
    """GET `path`; None if there was no whole answer within `seconds`. Cancels: the connection is closed."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(seconds):
                await loop.sock_connect(connection, address)
                await loop.sock_sendall(connection, request)
                return parsed(await _read_all(loop, connection))
        except OSError:  # TimeoutError is one, too
            return None


async def _read_all(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    received = bytearray()
    while len(received) < _MAX_BYTES:
        chunk = await loop.sock_recv(connection, _CHUNK_BYTES)
        if not chunk:
            break
        received += chunk
    return bytes(received)


def parsed(received: bytes) -> Answer | None:
    """The answer in these bytes; None if they are not HTTP."""
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return None
    return Answer(status=int(words[1][:3]), body=body)
