"""What the system knows of connections that a server is about to close: whether somebody is just coming, or speaking.

To close a listening socket resets who waits in its backlog, and to close a connection with unread bytes resets it:
either way a request is lost that was sent in good faith. So newcomers are turned away first, before they are let in.
"""

from __future__ import annotations

import array
import asyncio
import ctypes
import fcntl
import select
import socket
import struct
import sys
import termios

_SO_ATTACH_FILTER = 26
# Load byte 13 of the TCP header; if it has the SYN bit, keep nothing of the packet, else all of it.
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF_FFFF))


def turn_newcomers_away(listening: socket.socket) -> bool:
    """Let nobody begin to connect, while those who have begun get in; whether this system can do that.

    Who begins now hears nothing, asks again after a second, as TCP does, and is refused then: it has sent no request.
    Source: socket(7), SO_ATTACH_FILTER; the kernel's networking/filter.rst (classic BPF).
    """
    if sys.platform != "linux" or listening.family == socket.AF_UNIX:
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _NO_SYN))
    try:
        listening.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
        )
    except OSError:
        return False
    return True


def has_newcomers(listening: socket.socket) -> bool:
    """Whether a connection waits to be accepted."""
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))


def num_unread_bytes(transport: asyncio.BaseTransport) -> int:
    """What has arrived on a connection and was not read yet."""
    count = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, count)
    return count[0]
