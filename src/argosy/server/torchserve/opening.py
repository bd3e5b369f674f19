"""From what a caller registers to a model that can be run: its archive, checked and unpacked, and how to run it.

How a version is run is settled here, each line over the one before:

    config.properties and flags  <  model-config.yaml  <  `models` of config.properties, or a snapshot  <  the call
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from argosy.artifacts.archives.contents import ContentKind
from argosy.artifacts.archives.manifest_file import NAME_RULE, RUNTIMES, handler_fault
from argosy.artifacts.archives.opening import open_archive
from argosy.artifacts.archives.settings_file import decode_settings
from argosy.artifacts.store import default_store_root
from argosy.core.errors import InvalidRequest, SpecError
from argosy.core.model import is_name
from argosy.core.model_archive import ModelArchive, VersionSettings
from argosy.core.torchserve_spec import HandlerDefaults, StartVersion, TorchServeSpec
from argosy.server.torchserve.locations import ArchiveLocations
from argosy.serving.predictions.administration import OpenedModel
from argosy.serving.predictions.requests import RegisterOptions


class ArchivePlaces(msgspec.Struct, frozen=True):
    """Directories below the store's root. `argosy archive prepare` uses the same ones."""

    root: Path

    @property
    def unpacked(self) -> Path:
        """Archives by digest, and those that were fetched."""
        return self.root / "archives"

    @property
    def environments(self) -> Path:
        """What archives' requirements files ask for."""
        return self.root / "environments"


class ModelOpening:
    """Opens archives as one server's spec says."""

    def __init__(self, spec: TorchServeSpec) -> None:
        if spec.model_store is None:
            raise SpecError("no model store: pass --model-store DIR")
        self._spec = spec
        self.places = ArchivePlaces(spec.store or default_store_root())
        self._allowed = _allowed_content(spec.allow_content)
        self.locations = ArchiveLocations(spec.model_store, self.places.unpacked, spec.allow_sources, spec.network)

    async def open(self, options: RegisterOptions) -> OpenedModel:
        """The model a caller registers. Raises: NotFound, ArtifactError, SpecError, InvalidRequest."""
        path = await self.locations.find(options.url)
        archive = await asyncio.to_thread(
            open_archive,
            path,
            self.places.unpacked,
            url=options.url,
            environments=self.places.environments,
            allowed=self._allowed,
        )
        archive = as_registered(archive, options, self._spec.handlers)
        name = archive.manifest.model.model_name
        row = self._spec.models.get(name, {}).get(archive.manifest.model.model_version)
        base = start_settings(self._spec, is_at_start=options.is_loaded_at_startup)
        settings = decode_settings(archive.config, base, f"{path.name}: {archive.manifest.model.config_file}")
        return OpenedModel(archive=archive, settings=with_row(settings, row))


def _allowed_content(names: tuple[str, ...]) -> frozenset[ContentKind]:
    if unknown := [name for name in names if name != ContentKind.TORCHSCRIPT]:
        raise SpecError(f"--allow-content {unknown[0]!r} is not possible: only torchscript is")
    return frozenset(ContentKind(name) for name in names)


def start_settings(spec: TorchServeSpec, *, is_at_start: bool) -> VersionSettings:
    """What a version is run with where its archive says nothing.

    TorchServe gives models of the start a worker per core, and those registered later none.
    """
    num_workers = spec.workers_per_model
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if is_at_start else 0
    return msgspec.structs.replace(spec.version_defaults, min_workers=num_workers, max_workers=num_workers)


def with_row(settings: VersionSettings, row: StartVersion | None) -> VersionSettings:
    """The settings with what `models` or a snapshot says of this version. A maximum follows its minimum up."""
    if row is None:
        return settings
    given = {
        name: getattr(row, name)
        for name in StartVersion.__struct_fields__
        if name not in ("archive", "is_default") and getattr(row, name) is not None
    }
    if row.min_workers is not None:
        given["max_workers"] = max(row.max_workers or row.min_workers, row.min_workers)
    elif row.max_workers is not None:
        given["min_workers"] = min(settings.min_workers, row.max_workers)
    return msgspec.structs.replace(settings, **given)


def as_registered(archive: ModelArchive, options: RegisterOptions, defaults: HandlerDefaults) -> ModelArchive:
    """The archive under the name and with the handler that its caller wants, or else as its manifest says.

    Raises: InvalidRequest for a name, a runtime or a handler that no manifest could hold either (D-06).
    """
    model = archive.manifest.model
    if options.model_name and not is_name(options.model_name):
        raise InvalidRequest(f"model_name is {options.model_name[:100]!r}: it {NAME_RULE}", param="model_name")
    fault = handler_fault(options.handler, _files_below(archive.root)) if options.handler else None
    if fault is not None:
        raise InvalidRequest(f"handler is {options.handler[:200]!r}: it {fault}", param="handler")
    changed = msgspec.structs.replace(
        model,
        model_name=options.model_name or model.model_name,
        handler=options.handler or model.handler or defaults.handler,
    )
    if options.runtime not in ("", *RUNTIMES):
        raise InvalidRequest(
            f"runtime {options.runtime} is not run here: it must be {' or '.join(RUNTIMES)}", param="runtime"
        )
    runtime = options.runtime or archive.manifest.runtime
    manifest = msgspec.structs.replace(archive.manifest, model=changed, runtime=runtime)
    return msgspec.structs.replace(archive, manifest=manifest)


def _files_below(root: Path) -> frozenset[str]:
    return frozenset(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
