"""What workers print: lines of our log, each with its model and worker, so many a second and no more."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import cast

_LOG = logging.getLogger("argosy.handlers.output")
MAX_LINE_BYTES = 4_000
MAX_LINES_A_SECOND = 200.0
# So much at once, beyond the rate, is a flood: the next is read a little later.
_FLOOD_BYTES = 2**15
_FLOOD_SECONDS = 0.01


class OutputLines(asyncio.Protocol):
    """Reads a pipe. Lines beyond the rate are counted and dropped; a count is told once a second. A handler does not
    wait for our log, but one that floods the pipe waits for its reader, so that it does not keep the server busy.
    """

    def __init__(self, labels: dict[str, str | int], clock: Callable[[], float]) -> None:
        self._labels = labels
        self._clock = clock
        self._rest = b""
        self._allowance = MAX_LINES_A_SECOND
        self._refilled_at = clock()
        self._num_dropped = 0
        self._told_at = -math.inf
        self._transport: asyncio.ReadTransport | None = None
        self._resuming: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is open."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.ReadTransport", transport)

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
        if self._transport is not None and self._allowance < 1 and len(data) >= _FLOOD_BYTES:
            self._transport.pause_reading()
            self._resuming = asyncio.get_running_loop().call_later(_FLOOD_SECONDS, self._resume)

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker ended."""
        del exc
        if self._resuming is not None:
            self._resuming.cancel()
        self._end_line()
        self._tell_dropped()

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

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
        if self._refilled_at - self._told_at >= 1:
            self._tell_dropped()
        text = line[:MAX_LINE_BYTES].decode("utf-8", "backslashreplace").rstrip()
        _LOG.info("a handler printed", extra={**self._labels, "line": text})

    def _tell_dropped(self) -> None:
        if self._num_dropped:
            _LOG.warning("a handler prints too much", extra={**self._labels, "lines_dropped": self._num_dropped})
            self._num_dropped = 0
            self._told_at = self._refilled_at
