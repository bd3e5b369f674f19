"""The running configuration on disk, so that the next start can go on with it, in TorchServe's own form.

A snapshot is the config.properties the server was started with, and one more key, `model_snapshot`: the models and how
they run. It is written aside and renamed, so a reader never sees half of one. The last few are kept.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from argosy.core.prediction_status import VersionStatus
from argosy.server.torchserve.properties import written

logger = logging.getLogger(__name__)

KEEP = 10
_NAME = re.compile(r"\d{8}-\d{6}-\d{6}-(?:startup|snapshot\d+|shutdown)\.cfg")
# TorchServe's: 20240131102030123-startup.cfg.
_THEIR_NAME = re.compile(r"\d{17}-(?:startup|snapshot\d*|shutdown)\.cfg")


def last_snapshot(folder: Path) -> Path | None:
    """The newest snapshot in a folder, ours or TorchServe's; None without one."""
    if not folder.is_dir():
        return None
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) or _THEIR_NAME.fullmatch(path.name)]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)


def snapshot_text(properties: Mapping[str, str], versions: Sequence[VersionStatus], name: str, now: datetime) -> str:
    """The whole file."""
    kept = {key: value for key, value in properties.items() if key not in ("model_snapshot", "models", "load_models")}
    models: dict[str, dict[str, dict[str, object]]] = {}
    for each in versions:
        models.setdefault(each.name, {})[each.version] = _row(each)
    content = {
        "name": name,
        "modelCount": sum(len(found) for found in models.values()),
        "created": int(now.timestamp() * 1000),
        "models": models,
    }
    lines = [written(key, value) for key, value in sorted(kept.items())]
    return "".join(lines) + written("model_snapshot", msgspec.json.encode(content).decode())


def _row(status: VersionStatus) -> dict[str, object]:
    settings = status.settings
    return {
        "defaultVersion": status.is_default,
        "marName": status.url,
        "minWorkers": settings.min_workers,
        "maxWorkers": settings.max_workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": round(settings.max_batch_delay_seconds * 1000),
        "responseTimeout": round(settings.response_timeout_seconds),
        "startupTimeout": round(settings.startup_timeout_seconds),
    }


class Snapshots:
    """Writes them, over the life of one server. properties: what it was started with."""

    def __init__(self, folder: Path, properties: Mapping[str, str]) -> None:
        self._folder = folder
        self._properties = properties
        self._count = 0
        self._last = ""

    def write(self, versions: Sequence[VersionStatus], moment: str, now: datetime) -> None:
        """Write one if anything changed since the last. moment: startup, snapshot or shutdown.

        A disk that fails costs a line in the log, not the change that was made.
        """
        essence = snapshot_text(self._properties, versions, "", datetime.fromtimestamp(0, now.tzinfo))
        if essence == self._last:
            return
        self._count += moment == "snapshot"
        numbered = f"snapshot{self._count}" if moment == "snapshot" else moment
        name = f"{now:%Y%m%d-%H%M%S-%f}-{numbered}.cfg"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            aside = self._folder / f".{secrets.token_hex(4)}"
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(snapshot_text(self._properties, versions, name, now))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._folder / name)
            self._last = essence
            self._prune()
        except OSError as error:
            logger.warning("snapshot not written", extra={"folder": str(self._folder), "error": str(error)})

    def _prune(self) -> None:
        ours = sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        for path in ours[:-KEEP]:
            path.unlink(missing_ok=True)
