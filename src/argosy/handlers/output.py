"""What workers print: lines of our log, each with its model and worker, so many a second and no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

_LOG = logging.getLogger("argosy.handlers.output")
MAX_LINE_BYTES = 4_000
MAX_LINES_A_SECOND = 200.0


class OutputLines(asyncio.Protocol):
    """Reads a pipe. Lines beyond the rate are counted and dropped: a handler never waits for our log."""

    def __init__(self, labels: dict[str, str | int], clock: Callable[[], float]) -> None:
        self._labels = labels
        self._clock = clock
        self._rest = b""
        self._allowance = MAX_LINES_A_SECOND
        self._refilled_at = clock()
        self._num_dropped = 0

    def data_received(self, data: bytes) -> None:
        """Bytes of any length; a line without an end is cut."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._log(line)
        if len(rest) > MAX_LINE_BYTES:
            self._log(rest)
            rest = b""
        self._rest = rest

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker ended."""
        del exc
        if self._rest:
            self._log(self._rest)
            self._rest = b""
        self._tell_dropped()

    def _log(self, line: bytes) -> None:
        if not line.strip():
            return
        now = self._clock()
        refill = (now - self._refilled_at) * MAX_LINES_A_SECOND
        self._allowance = min(MAX_LINES_A_SECOND, self._allowance + refill)
        self._refilled_at = now
        if self._allowance < 1:
            self._num_dropped += 1
            return
        self._allowance -= 1
        self._tell_dropped()
        text = line[:MAX_LINE_BYTES].decode("utf-8", "backslashreplace").rstrip()
        _LOG.info("a handler printed", extra={**self._labels, "line": text})

    def _tell_dropped(self) -> None:
        if self._num_dropped:
            _LOG.warning("a handler prints too much", extra={**self._labels, "lines_dropped": self._num_dropped})
            self._num_dropped = 0
