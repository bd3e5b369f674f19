"""How far a fetch is: bytes, rate and time left, as values for whoever shows them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum

import msgspec

REPORT_INTERVAL_SECONDS = 0.1
RATE_WINDOW_SECONDS = 5.0


class FetchPhase(StrEnum):
    """What a fetch does now."""

    WAIT = "wait"
    RESOLVE = "resolve"
    DOWNLOAD = "download"
    UNPACK = "unpack"
    VERIFY = "verify"
    DONE = "done"


class FetchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One report. bytes_total and eta_seconds are None while unknown; file is empty when it is about all of them."""

    file: str
    bytes_done: int
    bytes_total: int | None
    bytes_per_second: float
    eta_seconds: float | None
    phase: FetchPhase


OnProgress = Callable[[FetchProgress], None]


class ProgressMeter:
    """Counts bytes of one phase after another and reports at most ten times a second, plus each change of phase.

    The rate is that of the last five seconds, so that a resumed or stalled download shows what happens now.
    """

    def __init__(self, on_progress: OnProgress | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_progress = on_progress
        self._clock = clock
        self._phase = FetchPhase.RESOLVE
        self._file = ""
        self._total: int | None = None
        self._done = 0
        self._reported_at = float("-inf")
        self._samples: deque[tuple[float, int]] = deque()

    def begin(self, phase: FetchPhase, file: str = "", total: int | None = None, done: int = 0) -> None:
        """Enter a phase; `done` bytes of it need no work (a resumed download)."""
        self._phase, self._file, self._total, self._done = phase, file, total, done
        self._samples.clear()
        self._samples.append((self._clock(), done))
        self._report(self._clock())

    def advance(self, num_bytes: int, file: str | None = None) -> None:
        """Count bytes done."""
        self.set_done(self._done + num_bytes, file)

    def set_total(self, total: int) -> None:
        """Set the bytes of this phase, once they are known."""
        self._total = total

    def set_done(self, done: int, file: str | None = None) -> None:
        """Set the bytes done so far in this phase."""
        self._done = done
        self._file = self._file if file is None else file
        now = self._clock()
        if now - self._reported_at >= REPORT_INTERVAL_SECONDS or done == self._total:
            self._report(now)

    def _report(self, now: float) -> None:
        self._reported_at = now
        self._samples.append((now, self._done))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_WINDOW_SECONDS:
            self._samples.popleft()
        if self._on_progress is None:
            return
        since, before = self._samples[0]
        rate = (self._done - before) / (now - since) if now > since else 0.0
        eta = max(self._total - self._done, 0) / rate if self._total is not None and rate > 0 else None
        self._on_progress(
            FetchProgress(
                file=self._file,
                bytes_done=self._done,
                bytes_total=self._total,
                bytes_per_second=rate,
                eta_seconds=eta,
                phase=self._phase,
            )
        )
