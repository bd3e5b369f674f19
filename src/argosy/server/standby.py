"""A warm process: everything a replica needs is imported, the engine's child too; it waits for a model.

What it shall be comes as one line of JSON on its standard input: {"argv": ["serve", "smollm2", …]}. From then on it
is that command, with the same process id, output and environment. Without a line it ends when its input does, so it
never outlives whoever started it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import msgspec

import argosy.server.run  # noqa: F401  # all that a replica imports, ahead of time
from argosy.core.plugins import resolve
from argosy.engines import AHEAD, DEFAULT_ENGINE, ENGINES
from argosy.web.stopping import EXIT_DONE


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the process shall be: the words of a command line after `argosy`."""

    argv: tuple[str, ...]


def wait_for_role(run: Callable[[Sequence[str]], int]) -> int:
    """Prepare, wait, and be what we are told: `run` carries a command line out. The exit code.

    Raises: EngineError if the default engine is not installed; DecodeError for a line that is no role.
    """
    resolve(ENGINES, DEFAULT_ENGINE, "engine")
    resolve(AHEAD, DEFAULT_ENGINE, "engine")()
    line = sys.stdin.buffer.readline()
    if not line:
        return EXIT_DONE
    role = msgspec.json.decode(line, type=Role)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    return run(role.argv)
