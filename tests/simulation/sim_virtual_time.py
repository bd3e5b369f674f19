"""An asyncio loop on a virtual clock: a wait of an hour takes no time, and nothing depends on the machine's speed."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(AssertionError):
    """Everything waits, and nothing will ever happen: a deadlock."""


class _InstantSelector(selectors.SelectSelector):
    """Instead of waiting for a timer, moves the clock to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Stuck("all tasks wait and no timer is set")
        self.now += max(timeout, 1e-9)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is the selector's."""

    def __init__(self) -> None:
        self.instant = _InstantSelector()
        super().__init__(self.instant)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.instant.now


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a clock that begins at 0."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
