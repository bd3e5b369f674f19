"""How one version of an archived model is doing: what the management API shows and probes decide by."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from argosy.core.model_archive import VersionSettings


class WorkerPhase(StrEnum):
    """Where a worker is in its life. `failed`: it could not start, or died, and waits for its next try."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. seat: its number within the server, as TorchServe counts them from 9000.

    reason: why it is not ready, in a sentence; "" if it is. restarts: since its seat was made.
    """

    seat: int
    phase: WorkerPhase
    reason: str = ""
    pid: int | None = None
    started_at: float = 0.0
    memory_bytes: int = 0
    restarts: int = 0


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model.

    settings: as they are now, scaling included. batch_size, max_batch_delay_seconds: as tuning has set them.
    is_healthy: as many workers live as shall, or lost ones are still being brought back within the retry time.
    """

    name: str
    version: str
    url: str
    runtime: str
    is_default: bool
    is_loaded_at_startup: bool
    is_healthy: bool
    settings: VersionSettings
    batch_size: int
    max_batch_delay_seconds: float
    num_queued: int
    num_running: int
    workers: tuple[WorkerStatus, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether a worker is there that answers."""
        return any(worker.phase is WorkerPhase.READY for worker in self.workers)
