"""The life of one server: starting, ready, draining, dead, and the requests it is answering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum


class Phase(StrEnum):
    """Where a server is in its life. Only `ready` asks for new requests."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


def _no_parts() -> dict[str, float]:
    return {}


class Lifecycle:
    """The phase of one process, why it is in it, and how many requests are open.

    start_seconds: what the start has taken so far, by its parts; told with the readiness.
    """

    def __init__(self, starting: str, *, serves_while_draining: bool = False) -> None:
        """starting: what callers are told until the server is ready.

        serves_while_draining: who comes although it is not ready any more is answered, not sent away.
        """
        self._serves_while_draining = serves_while_draining
        self.phase = Phase.STARTING
        self.reason = starting
        self.in_flight = 0
        self.start_seconds: Callable[[], dict[str, float]] = _no_parts
        self.changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_ready(self) -> bool:
        """Whether new requests are asked for: what probes tell."""
        return self.phase is Phase.READY

    @property
    def takes_requests(self) -> bool:
        """Whether a request that comes is answered."""
        return self.phase is Phase.READY or (self._serves_while_draining and self.phase is Phase.DRAINING)

    def ready(self) -> None:
        """What the server needs is there."""
        self._move(Phase.READY, "")

    def drain(self) -> None:
        """Ask for nothing new; finish what runs."""
        if self.phase is not Phase.DEAD:
            self._move(Phase.DRAINING, "the server is shutting down: send the request to another replica")

    def die(self, reason: str) -> None:
        """It cannot serve any more: this process must be replaced."""
        if self.phase is not Phase.DEAD:
            self._move(Phase.DEAD, reason)

    def enter(self) -> None:
        """A request begins."""
        self.in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        """A request has ended."""
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return once no request is being answered."""
        await self._idle.wait()

    async def wait_dead(self) -> None:
        """Return once the process must be replaced."""
        while self.phase is not Phase.DEAD:
            self.changed.clear()
            await self.changed.wait()

    def _move(self, phase: Phase, reason: str) -> None:
        self.phase = phase
        self.reason = reason
        self.changed.set()
