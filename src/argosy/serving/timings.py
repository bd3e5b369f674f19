"""When things happened to one request, on a monotonic clock (F-11)."""

from __future__ import annotations

import msgspec


class Timings(msgspec.Struct, kw_only=True):
    """Moments of one request, in seconds of the server's monotonic clock; None = not yet."""

    arrived: float
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    left: float | None = None

    @property
    def queue_seconds(self) -> float | None:
        """From arrival to permit."""
        return _between(self.arrived, self.admitted)

    @property
    def first_token_seconds(self) -> float | None:
        """From arrival to the first token: TTFT as the server sees it."""
        return _between(self.arrived, self.first_token)

    @property
    def prefill_seconds(self) -> float | None:
        """From permit to first token."""
        return _between(self.admitted, self.first_token)

    @property
    def decode_seconds(self) -> float | None:
        """From first to last token."""
        return _between(self.first_token, self.last_token)

    @property
    def inference_seconds(self) -> float | None:
        """From permit to last token."""
        return _between(self.admitted, self.last_token)

    @property
    def total_seconds(self) -> float | None:
        """From arrival to the end, however it ended."""
        return _between(self.arrived, self.left)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start
