"""A model as a TorchServe archive brings it: what its manifest says, where its files lie, how it is to be run.

Source: model-archiver/manifest_components and docs/README of TorchServe 0.12; `model-config.yaml` of the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

DEFAULT_VERSION = "1.0"


class ArchiveModel(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The `model` section of a manifest. Every path is a file's name inside the archive; "" = not given.

    handler: a built-in handler's name, `file.py`, `file.py:function` or `file.py:Class`.
    """

    model_name: str = ""
    serialized_file: str = ""
    handler: str = ""
    model_file: str = ""
    model_version: str = DEFAULT_VERSION
    requirements_file: str = ""
    config_file: str = ""
    service_envelope: str = ""


class ArchiveManifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`MAR-INF/MANIFEST.json`. runtime: `python`, `python3` or `LSP`. created_on: day/month/year and time, or ""."""

    created_on: str = ""
    runtime: str = "python"
    model: ArchiveModel = ArchiveModel()
    archiver_version: str = ""


class ModelArchive(msgspec.Struct, frozen=True, kw_only=True):
    """An archive on disk, checked and unpacked.

    url: what it was registered as (`t5.mar`). root: the directory with its files, read-only for its handler.
    digest: sha256 of its content. config: the model-config.yaml, {} without one. environment: the prepared directory
    with what its requirements file asks for; None = it asks for nothing.
    """

    url: str
    root: Path
    digest: str
    manifest: ArchiveManifest
    config: dict[str, Any] = {}
    environment: Path | None = None


class SequenceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests that belong together and must meet the same worker, in their order.

    max_idle_seconds: how long a sequence may be silent before it ends. timeout_seconds: its longest life, 0 = none.
    """

    max_idle_seconds: float = 0.0
    timeout_seconds: float = 0.0
    max_sequences: int = 1
    max_queued_per_sequence: int = 1


class VersionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one version of a model is run.

    min_workers: worker processes that shall run. max_workers: the ceiling for it.
    batch_size: requests one call of the handler may get. max_batch_delay_seconds: how long the first waits for more.
    is_tuned: batch size and delay are lowered where batching measurably does not pay.
    response_timeout_seconds: longest silence of a handler's call, from its begin or its last piece.
    startup_timeout_seconds: longest start of a worker.
    retry_timeout_seconds: how long a model that lost workers still counts as healthy.
    client_timeout_seconds: longest wait of a request for the first of its answer; None = any.
    use_job_ticket: refuse a request at once if no worker is idle.
    worker_memory_bytes: private memory one worker may take; None = no limit. worker_threads: CPU threads of one
    worker; None = cores divided by workers.
    sequences: None = requests are independent.
    """

    min_workers: int = 1
    max_workers: int = 1
    batch_size: int = 1
    max_batch_delay_seconds: float = 0.1
    is_tuned: bool = True
    response_timeout_seconds: float = 120.0
    startup_timeout_seconds: float = 120.0
    retry_timeout_seconds: float = 300.0
    client_timeout_seconds: float | None = None
    job_queue_size: int = 100
    use_job_ticket: bool = False
    worker_memory_bytes: int | None = None
    worker_threads: int | None = None
    device_type: str = "cpu"
    device_ids: tuple[int, ...] = ()
    sequences: SequenceSettings | None = None
