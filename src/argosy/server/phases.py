"""What the start takes, phase by phase, while it happens and as a table at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from argosy.observe.metrics import Metrics

HEARTBEAT_SECONDS = 1.5  # Nothing is silent for more than two, with the time the interpreter took to come here.

Say = Callable[[str], None]


class StartPhases:
    """Times named phases; some run at the same time. `say` shows one line to whoever waits."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._began = clock()
        self._running: dict[str, float] = {}
        self._details: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        self._running[name] = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self._clock() - self._running.pop(name)

    def detail(self, name: str, text: str) -> None:
        """What a running phase is doing, for the next heartbeat."""
        self._details[name] = text

    def so_far(self) -> dict[str, float]:
        """Every phase that has begun: those that ended, and those that run with their time until now."""
        now = self._clock()
        return self.seconds | {name: now - since for name, since in self._running.items()}

    @property
    def total_seconds(self) -> float:
        """Since the start began."""
        return self._clock() - self._began

    def table(self) -> list[str]:
        """One line per phase, and the total, which is less than their sum where phases overlap."""
        rows = [*self.seconds.items(), ("total", self.total_seconds)]
        width = max(len(name) for name, _ in rows)
        return [f"  {name:<{width}}  {seconds:7.2f} s" for name, seconds in rows]

    def publish(self, metrics: Metrics) -> None:
        """The same as metrics."""
        for name, seconds in (*self.seconds.items(), ("total", self.total_seconds)):
            metrics.gauge("argosy_start_phase_seconds", name).set(round(seconds, 4))

    async def heartbeat(self, every_seconds: float = HEARTBEAT_SECONDS) -> None:
        """Say again and again what is still running, for ever. Cancels: leaves nothing behind."""
        while True:
            await asyncio.sleep(every_seconds)
            for name, since in list(self._running.items()):
                detail = self._details.get(name, "")
                self._say(f"{name}: {self._clock() - since:.0f} s{' · ' + detail if detail else ''}")
