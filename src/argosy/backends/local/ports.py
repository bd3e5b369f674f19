"""Free ports for replicas: below the range that the kernel gives to outgoing connections, so none is lost to one."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Container
from pathlib import Path

from argosy.core.errors import BackendError

HOST = "127.0.0.1"
_LOWEST = 20_000
_TRIES = 200
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(taken: Container[int]) -> int:
    """A port nobody listens on now, and not one of `taken`. Raises: BackendError."""
    above = _ephemeral_from()
    for _ in range(_TRIES):
        port = random.randrange(_LOWEST, above) if above > _LOWEST else 0
        found = _bound(port)
        if found and found not in taken:
            return found
    raise BackendError(f"no free port was found between {_LOWEST} and {above}: end what listens there")


def is_taken(port: int) -> bool:
    """Whether somebody listens on the port now."""
    return not _bound(port)


def _bound(port: int) -> int:
    """The port, or the one the kernel chose for 0; 0 if it is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers bind: connections of an ended one that still linger are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            return 0
        return int(probe.getsockname()[1])


def _ephemeral_from() -> int:
    try:
        return int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
