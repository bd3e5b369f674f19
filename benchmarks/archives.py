"""Model archives and configuration files for the TorchServe cases and benchmarks, written here: no archiver needed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

_CREATED_ON = "31/01/2024 10:20:30"


class ArchiveSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One archive: `handler` as the manifest names it, its source file beside it unless `source` says otherwise."""

    file: str
    model: str
    handler: str = ""
    version: str = "1.0"
    runtime: str = "python"
    config: dict[str, Any] | None = None
    manifest: dict[str, str | None] = {}
    source: str | None = ""
    text: str = ""
    files: tuple[str, ...] = ()


def write_archive(spec: ArchiveSpec, sources: Path, store: Path) -> Path:
    """Write one archive into `store`. files: more paths under `sources`, put flat into it."""
    path = store / spec.file
    if spec.text:
        path.write_text(spec.text)
        return path
    model: dict[str, str | None] = {"modelName": spec.model, "handler": spec.handler, "modelVersion": spec.version}
    if spec.config is not None:
        model["configFile"] = "model-config.yaml"
    model |= spec.manifest
    manifest = {
        "createdOn": _CREATED_ON,
        "runtime": spec.runtime,
        "model": {key: value for key, value in model.items() if value is not None},
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        if spec.config is not None:
            archive.writestr("model-config.yaml", yaml.safe_dump(spec.config))
        handler = spec.handler.partition(":")[0]
        for name in ([spec.source or handler] if spec.source is not None else []) + list(spec.files):
            archive.write(sources / name, Path(name).name)
    return path


def write_store(folder: Path, store: Path) -> None:
    """Write every archive that `folder`/archives.yaml lists, from the handlers beside it."""
    store.mkdir(parents=True, exist_ok=True)
    for spec in msgspec.convert(yaml.safe_load((folder / "archives.yaml").read_text()), list[ArchiveSpec]):
        write_archive(spec, folder / "handlers", store)


def write_properties(path: Path, store: Path, ports: Mapping[str, int], more: Mapping[str, str]) -> Path:
    """Write a config.properties with three loopback addresses; `{name}` in a value of `more` is that port."""
    lines = {f"{name}_address": f"http://127.0.0.1:{ports[name]}" for name in ("inference", "management", "metrics")}
    lines |= {"model_store": str(store)}
    for key, value in more.items():
        for name, port in ports.items():
            value = value.replace("{" + name + "}", str(port))
        lines[key] = value
    # A backslash would be an escape in a properties file.
    path.write_text("".join(f"{key}={value}\n".replace("\\", "\\\\") for key, value in lines.items()))
    return path
