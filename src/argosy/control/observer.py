"""What the loop tells of itself: for metrics, which the root of the control plane wires to it."""

from __future__ import annotations

from typing import Protocol


class LoopObserver(Protocol):
    """Told of every look and every event, on the event loop; must not wait."""

    def looked(self, seconds: float, at: float) -> None:
        """One service was looked at, actions included, in so many seconds; `at` in unix seconds."""
        ...

    def failed(self, reason: str) -> None:
        """A look did not finish; reason: a word of `ConditionReason`."""
        ...

    def told(self, service: str, reason: str) -> None:
        """An event was stored; reason: a word of `EventReason`."""
        ...


class NoObserver:
    """Nobody looks."""

    def looked(self, seconds: float, at: float) -> None:
        """Nothing."""

    def failed(self, reason: str) -> None:
        """Nothing."""

    def told(self, service: str, reason: str) -> None:
        """Nothing."""
