"""What workers print: lines of our log, each with its model and worker, so many a second and no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

_LOG = logging.getLogger("argosy.handlers.output")
MAX_LINE_BYTES = 4_000
MAX_LINES_A_SECOND = 200.0


class OutputLines(asyncio.Protocol):
    """Reads a pipe. Lines beyond the rate are counted and dropped: a handler never waits for our log, and what it
    prints too much of costs the server little, as it is only counted.
    """

    def __init__(self, labels: dict[str, str | int], clock: Callable[[], float]) -> None:
        self._labels = labels
        self._clock = clock
        self._rest = b""
        self._allowance = MAX_LINES_A_SECOND
        self._refilled_at = clock()
        self._num_dropped = 0

    def data_received(self, data: bytes) -> None:
        """Bytes of any length; a line without an end is cut."""
        now = self._clock()
        refill = (now - self._refilled_at) * MAX_LINES_A_SECOND
        self._allowance = min(MAX_LINES_A_SECOND, self._allowance + refill)
        self._refilled_at = now
        text = self._rest + data
        start = 0
        while self._allowance >= 1 and (end := text.find(b"\n", start)) >= 0:
            self._log(text[start:end])
            start = end + 1
        end = text.rfind(b"\n", start) + 1
        if end:
            self._num_dropped += text.count(b"\n", start, end)
            start = end
        self._rest = text[start:]
        if len(self._rest) > MAX_LINE_BYTES:
            self._end_line()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker ended."""
        del exc
        self._end_line()
        self._tell_dropped()

    def _end_line(self) -> None:
        if self._allowance >= 1:
            self._log(self._rest)
        else:
            self._num_dropped += bool(self._rest)
        self._rest = b""

    def _log(self, line: bytes) -> None:
        if not line.strip():
            return
        self._allowance -= 1
        self._tell_dropped()
        text = line[:MAX_LINE_BYTES].decode("utf-8", "backslashreplace").rstrip()
        _LOG.info("a handler printed", extra={**self._labels, "line": text})

    def _tell_dropped(self) -> None:
        if self._num_dropped:
            _LOG.warning("a handler prints too much", extra={**self._labels, "lines_dropped": self._num_dropped})
            self._num_dropped = 0
