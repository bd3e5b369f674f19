"""What the loop is set to: everything it needs beyond the spec of a service."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The same for all services.

    program: what runs `argosy`; the command and its flags follow. replica_keys_file: the keys replicas ask for.
    resync_seconds: everything is looked at this often, whatever was heard. scaling_period_seconds: between decisions.
    stale_seconds: a gateway silent for longer has no say, and no number may fall without one (F-13).
    linger_seconds: between the last share of traffic of a revision and its end, so that every gateway has heard.
    call_seconds: longest time of one call to the store or the backend.
    """

    program: tuple[str, ...] = (sys.executable, "-m", "argosy.cli.main")
    replica_keys_file: Path | None = None
    resync_seconds: float = 10.0
    scaling_period_seconds: float = 1.0
    stale_seconds: float = 3.0
    linger_seconds: float = 2.0
    call_seconds: float = 30.0


class SteadyClock:
    """Unix seconds that never jump: read once, then counted by the monotonic clock (F-11)."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def __call__(self) -> float:
        """Now."""
        return self._monotonic() + self._offset
