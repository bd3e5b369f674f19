"""How a version plans its batches: as configured, or as measured."""

from __future__ import annotations

from argosy.core.batching import BatchPlan, BatchTuner
from argosy.core.model_archive import VersionSettings


class FixedPlanner:
    """Every batch as configured, as TorchServe does it."""

    def __init__(self, batch_size: int, delay_seconds: float) -> None:
        self.batch_size = batch_size
        self.delay_seconds = delay_seconds if batch_size > 1 else 0.0
        self._plan = BatchPlan(batch_size=batch_size, delay_seconds=self.delay_seconds)

    def plan(self, num_waiting: int, num_in_flight: int, num_idle: int) -> BatchPlan:
        """The same for everyone."""
        return self._plan

    def held(self, seconds: float, num_before: int, num_after: int) -> None:
        """Nothing is learned."""

    def finished(self, size: int, seconds: float, num_in_flight: int) -> None:
        """Nothing is learned."""


def make_planner(settings: VersionSettings) -> FixedPlanner | BatchTuner:
    """The planner the settings ask for. A sequence's requests are never batched with each other, so never tuned."""
    if settings.is_tuned and settings.batch_size > 1 and settings.sequences is None:
        return BatchTuner(settings.batch_size, settings.max_batch_delay_seconds)
    return FixedPlanner(settings.batch_size, settings.max_batch_delay_seconds)
