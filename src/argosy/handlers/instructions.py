"""What a worker is told when it starts: its archive, its limits, its device, out of what the server knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from argosy.core.model_archive import ModelArchive, VersionSettings
from argosy.handlers.options import HandlerOptions
from argosy.handlers.worker.messages import Limits, Load

_MANIFEST = Path("MAR-INF") / "MANIFEST.json"


def load_command(archive: ModelArchive, settings: VersionSettings, seat: int, options: HandlerOptions) -> Load:
    """The first command to the worker at that seat."""
    model = archive.manifest.model
    return Load(
        root=str(archive.root),
        environment=str(archive.environment or ""),
        manifest=_manifest(archive),
        config=archive.config,
        batch_size=settings.batch_size,
        limits=Limits(threads=threads_of(settings), memory_bytes=settings.worker_memory_bytes),
        gpu=gpu_of(settings, seat, _count_gpus()),
        envelope=model.service_envelope or str(archive.config.get("serviceEnvelope", "")) or options.service_envelope,
        decodes_input=options.decodes_input,
        limits_image_pixels=options.limits_image_pixels,
        allowed_content=tuple(sorted(options.allowed_content)),
        declared_metrics=options.declared_metrics,
    )


def threads_of(settings: VersionSettings) -> int:
    """CPU threads of one worker: as set, else the cores shared among the model's workers."""
    if settings.worker_threads is not None:
        return settings.worker_threads
    return max(1, len(os.sched_getaffinity(0)) // max(1, settings.min_workers))


def gpu_of(settings: VersionSettings, seat: int, num_gpus: int) -> int | None:
    """The device of the worker at that seat, in turn; None = the CPU."""
    if settings.device_type != "gpu":
        return None
    if settings.device_ids:
        return settings.device_ids[seat % len(settings.device_ids)]
    return seat % num_gpus if num_gpus else None


def _count_gpus() -> int:
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _manifest(archive: ModelArchive) -> dict[str, Any]:
    """As the archive has it, keys of its own included; what the server decided stands over it."""
    try:
        written = msgspec.json.decode((archive.root / _MANIFEST).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        written = {}
    decided: dict[str, Any] = msgspec.to_builtins(archive.manifest)
    model = archive.manifest.model
    own = written.get("model")
    decided["model"] = {
        **(own if isinstance(own, dict) else {}),
        **decided["model"],
        "modelName": model.model_name,
        "modelVersion": model.model_version,
    }
    return {**written, **decided}
