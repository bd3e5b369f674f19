"""What a version of a model reports as it works. The protocol that shows it decides under which names."""

from __future__ import annotations

from typing import Protocol

from argosy.core.errors import ArgosyError
from argosy.core.prediction import HandlerMetric, PredictRequest


class PredictionMeters(Protocol):
    """Called from the event loop, on the way of every request: each call must be a few additions."""

    def arrived(self, request: PredictRequest) -> None:
        """A client asked for a prediction, whatever becomes of it."""
        ...

    def ended(
        self, request: PredictRequest, queue_seconds: float, inference_seconds: float, error: ArgosyError | None
    ) -> None:
        """The request got its ending: an answer, an error, or its client left (error None, maybe no inference)."""
        ...

    def batch(self, size: int, seconds: float) -> None:
        """A call with so many requests was answered."""
        ...

    def worker_loaded(self, seat: int, seconds: float) -> None:
        """A worker became ready, so long after its start."""
        ...

    def worker_left(self, seat: int) -> None:
        """The worker's seat was given up; its number does not come again."""
        ...

    def version_left(self, *, is_last: bool) -> None:
        """The version is not served any more; is_last: nor is any other of its name."""
        ...

    def handler_metric(self, metric: HandlerMetric) -> None:
        """A handler reported an observation of its own."""
        ...


class Silence:
    """Meters that nobody reads."""

    def arrived(self, request: PredictRequest) -> None:
        """Say nothing."""

    def ended(
        self, request: PredictRequest, queue_seconds: float, inference_seconds: float, error: ArgosyError | None
    ) -> None:
        """Say nothing."""

    def batch(self, size: int, seconds: float) -> None:
        """Say nothing."""

    def worker_loaded(self, seat: int, seconds: float) -> None:
        """Say nothing."""

    def worker_left(self, seat: int) -> None:
        """Say nothing."""

    def version_left(self, *, is_last: bool) -> None:
        """Say nothing."""

    def handler_metric(self, metric: HandlerMetric) -> None:
        """Say nothing."""


NO_METERS: PredictionMeters = Silence()
