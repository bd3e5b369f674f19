"""A model version as `GET /models/{model}` shows it: one element of the array, members without a value left out.

Source: DescribeModelResponse of TorchServe 0.12.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from argosy.core.model_archive import SequenceSettings
from argosy.core.prediction_status import VersionStatus, WorkerPhase, WorkerStatus

_NO_PROCESS = -1
_MS_PER_SECOND = 1_000
_NO_SEQUENCES = SequenceSettings(max_sequences=0, max_queued_per_sequence=0)


def described(status: VersionStatus, *, metadata: Any = None, strict: bool) -> dict[str, Any]:
    """The element. metadata: what the handler says of itself, if that was asked for and it says something."""
    element = {
        "modelName": status.name,
        "modelVersion": status.version,
        "modelUrl": status.url,
        "runtime": status.runtime,
        **_settings(status),
        "loadedAtStartup": status.is_loaded_at_startup,
        "workers": [_worker(worker, strict=strict) for worker in status.workers],
        "jobQueueStatus": {
            "remainingCapacity": max(0, status.settings.job_queue_size - status.num_queued),
            "pendingRequests": status.num_queued,
        },
    }
    if metadata is not None:
        element["customizedMetadata"] = metadata
    if not strict:
        element["argosy"] = {
            "isHealthy": status.is_healthy,
            "isDefault": status.is_default,
            "runningRequests": status.num_running,
            "tunedBatchSize": status.batch_size,
            "tunedMaxBatchDelay": round(status.max_batch_delay_seconds * _MS_PER_SECOND, 3),
        }
    return element


def _settings(status: VersionStatus) -> dict[str, Any]:
    settings = status.settings
    sequences = settings.sequences or _NO_SEQUENCES
    shown: dict[str, Any] = {
        "minWorkers": settings.min_workers,
        "maxWorkers": settings.max_workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": round(settings.max_batch_delay_seconds * _MS_PER_SECOND),
        "responseTimeout": round(settings.response_timeout_seconds),
        "startupTimeout": round(settings.startup_timeout_seconds),
        "maxRetryTimeoutInSec": round(settings.retry_timeout_seconds),
        "clientTimeoutInMills": round((settings.client_timeout_seconds or 0.0) * _MS_PER_SECOND),
        "parallelType": "",
        "parallelLevel": 0,
        "deviceType": settings.device_type,
        "continuousBatching": False,
        "useJobTicket": settings.use_job_ticket,
        "useVenv": False,
        "stateful": settings.sequences is not None,
        "sequenceMaxIdleMSec": round(sequences.max_idle_seconds * _MS_PER_SECOND),
        "sequenceTimeoutMSec": round(sequences.timeout_seconds * _MS_PER_SECOND),
        "maxNumSequence": sequences.max_sequences,
        "maxSequenceJobQueueSize": sequences.max_queued_per_sequence,
    }
    if settings.device_ids:
        shown["deviceIds"] = list(settings.device_ids)
    return shown


def _worker(worker: WorkerStatus, *, strict: bool) -> dict[str, Any]:
    """One worker. What is not ready is UNLOADING, as TorchServe has it; why, and what it really does, is ours."""
    is_ready = worker.phase is WorkerPhase.READY
    shown: dict[str, Any] = {
        "id": str(worker.seat),
        "startTime": _timestamp(worker.started_at),
        "status": "READY" if is_ready else "UNLOADING",
        "memoryUsage": worker.memory_bytes,
        "pid": _NO_PROCESS if worker.pid is None else worker.pid,
        "gpu": False,
        "gpuUsage": "N/A",
    }
    if not strict:
        shown["phase"] = worker.phase.value
        shown["restarts"] = worker.restarts
        if worker.reason:
            shown["reason"] = worker.reason
    return shown


def _timestamp(unix_seconds: float) -> str:
    """`2024-01-31T10:20:30.123Z`."""
    moment = datetime.fromtimestamp(unix_seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def can_answer(status: VersionStatus) -> bool:
    """Whether a worker of the version is ready."""
    return any(worker.phase is WorkerPhase.READY for worker in status.workers)
