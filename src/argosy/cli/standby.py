"""`argosy standby`: a process of the local backend, not of users: it waits for the command line it shall be."""

from __future__ import annotations

from argosy.cli.main import run
from argosy.core.plugins import resolve

_SERVER = {"standby": "argosy.server.standby:wait_for_role"}


def command() -> int:
    """Import what a replica needs, then wait for its command line on standard input."""
    return int(resolve(_SERVER, "standby", "server")(run))
