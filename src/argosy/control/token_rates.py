"""Generated tokens per second of each replica, from the counts replicas report of themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from argosy.core.load_report import ReplicaLoad

_ROWS = 12
_ROW_SECONDS = 1.0
_FORGOTTEN_SECONDS = 15.0


class _Row(msgspec.Struct, frozen=True):
    at: float
    epoch: str
    tokens: int


class TokenRates:
    """The last counts of each replica, about one a second. A replica nobody reports any more is forgotten."""

    def __init__(self) -> None:
        self._rows: dict[str, deque[_Row]] = {}

    def record(self, loads: Iterable[ReplicaLoad], now: float) -> None:
        """Take what a gateway knows of replicas; several gateways may know the same one."""
        for load in loads:
            report, asked_at = load.report, now - max(load.reported_seconds_ago or 0.0, 0.0)
            if report is None:
                continue
            row = _Row(asked_at, report.epoch, report.generation_tokens)
            rows = self._rows.setdefault(load.replica, deque(maxlen=_ROWS))
            if rows and row.at <= rows[-1].at:
                continue  # An older answer, by way of another gateway.
            if rows and (rows[-1].epoch != row.epoch or row.tokens < rows[-1].tokens):
                rows.clear()  # Another process: begin anew.
            if not rows or row.at - rows[-1].at >= _ROW_SECONDS:
                rows.append(row)

    def rate(self, replica: str, now: float) -> float | None:
        """Tokens per second over about the last ten seconds; None if that is not known."""
        rows = self._rows.get(replica)
        if not rows or len(rows) < 2 or now - rows[-1].at > _FORGOTTEN_SECONDS:
            return None
        first, last = rows[0], rows[-1]
        return (last.tokens - first.tokens) / (last.at - first.at)

    def forget_silent(self, now: float) -> None:
        """Drop replicas of which nothing was heard for a while."""
        for name in [name for name, rows in self._rows.items() if now - rows[-1].at > _FORGOTTEN_SECONDS]:
            del self._rows[name]
