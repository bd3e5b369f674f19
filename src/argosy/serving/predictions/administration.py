"""What operators do with archived models: register, scale, describe, list, choose the default version, unregister.

The rules are TorchServe's (names and versions come from the manifest, the first version is the default, the default
one cannot go while others are there), except that scaling down and unregistering let running requests finish.

It owns the task of every version: it is entered where the server starts and left where it ends.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import msgspec

from argosy.core.errors import ArgosyError, Conflict, DeadlineExceeded, EngineError, InvalidRequest, OutOfResources
from argosy.core.interfaces import Predictor
from argosy.core.model_archive import ModelArchive, VersionSettings
from argosy.core.prediction_status import VersionStatus
from argosy.serving.predictions.failures import StartFailed
from argosy.serving.predictions.meters import PredictionMeters
from argosy.serving.predictions.registry import PredictionRegistry
from argosy.serving.predictions.requests import RegisterOptions, ScaleOptions
from argosy.serving.predictions.results import ListedModel, ModelPage, Registered, Scaled
from argosy.serving.predictions.version import Birth, PredictionVersion

ALL_VERSIONS = "all"
_FIRST_SEAT = 9000
_MAX_PAGE = 100
_MAX_WORKERS = 1024
_GRACE_SECONDS = 30.0  # beyond the startup timeout, for a synchronous registration: workers start beside each other


class OpenedModel(msgspec.Struct, frozen=True, kw_only=True):
    """An archive under the name and with the handler that were asked for, and how it is to be run if nothing was."""

    archive: ModelArchive
    settings: VersionSettings


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """What the administration does not know how to do itself.

    open_model: find, check and unpack an archive. make_predictor: a predictor for a seat. make_meters: by name and
    version. on_change: something that a snapshot shows has changed.
    """

    open_model: Callable[[RegisterOptions], Awaitable[OpenedModel]]
    make_predictor: Callable[[ModelArchive, VersionSettings, int], Predictor]
    make_meters: Callable[[str, str], PredictionMeters]
    on_change: Callable[[], Awaitable[None]]


class Administration:
    """Entered once, by the task that serves; its methods may be called from any task meanwhile."""

    def __init__(
        self,
        wiring: Wiring,
        *,
        registry: PredictionRegistry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry or PredictionRegistry()
        self._wiring = wiring
        self._clock = clock
        self._seats = itertools.count(_FIRST_SEAT)
        self._group = asyncio.TaskGroup()
        self._running: set[PredictionVersion] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for version in [*self._running]:
            await version.close()
        await self._group.__aexit__(kind, error, trace)

    @property
    def is_healthy(self) -> bool:
        """Whether the default version of every model is healthy."""
        return all(self.registry.get(name).is_healthy for name in self.registry.names())

    async def register(self, options: RegisterOptions) -> Registered:
        """Register an archive and start its workers.

        Cancels: the version stays registered. Raises: what opening raises; Conflict; the error of a worker that did
        not start, if waited for: the version is then unregistered again.
        """
        opened = await self._wiring.open_model(options)
        version = self._make_version(options, opened)
        try:
            self.registry.add(version)
        except Conflict:
            self._forget_series(version)
            raise
        self._running.add(version)
        self._group.create_task(self._live(version), name=f"version {version.name}/{version.version}")
        await self._wiring.on_change()
        is_complete = await self._started(version, options)
        if options.is_default:
            await self.set_default(version.name, version.version)
        return Registered(
            name=version.name,
            version=version.version,
            num_workers=version.settings.min_workers,
            is_complete=is_complete,
        )

    async def scale(self, name: str, version: str | None, options: ScaleOptions) -> Scaled:
        """Run more or fewer workers. Raises: ModelNotFound, NotFound, InvalidRequest; a failed start, if waited for."""
        found = self.registry.get(name, version)
        most = options.min_workers if options.max_workers is None else options.max_workers
        _check_scale(options.min_workers, most)
        found.scale(options.min_workers, most)
        is_complete = False
        if options.is_synchronous:
            seconds = options.timeout_seconds
            is_complete = await found.wait_scaled(
                found.settings.startup_timeout_seconds if seconds is None else seconds
            )
        await self._wiring.on_change()
        return Scaled(name=name, version=found.version, num_workers=found.settings.min_workers, is_complete=is_complete)

    def describe(self, name: str, version: str | None = None) -> list[VersionStatus]:
        """The default version, the named one, or "all". Raises: ModelNotFound, NotFound."""
        versions = self.registry.versions(name) if version == ALL_VERSIONS else [self.registry.get(name, version)]
        return [each.status(is_default=self.registry.is_default(each)) for each in versions]

    async def describe_handler(self, name: str, version: str | None = None) -> Any:
        """What the version's handler says of itself, as JSON values; None if nothing. Raises: as predict."""
        return await self.registry.get(name, version).describe()

    def list(self, limit: int = _MAX_PAGE, offset: int = 0) -> ModelPage:
        """Models by name. A limit outside 1..100 means 100, an offset below 0 means 0."""
        size = limit if 0 < limit <= _MAX_PAGE else _MAX_PAGE
        begin = max(offset, 0)
        names = self.registry.names()
        page = tuple(ListedModel(name=name, url=self.registry.get(name).archive.url) for name in names[begin:][:size])
        end = begin + size
        return ModelPage(models=page, next_page_token=str(end) if end < len(names) else "")

    async def set_default(self, name: str, version: str) -> str:
        """Make a version what clients get that name none; returns it. Raises: ModelNotFound, NotFound."""
        self.registry.set_default(name, version)
        await self._wiring.on_change()
        return version

    async def unregister(self, name: str, version: str | None = None, timeout_seconds: float = 120.0) -> str:
        """Take no more requests, answer those there, end the workers; returns the version.

        Cancels: the version is gone from the registry; its workers end. Raises: ModelNotFound, NotFound; Forbidden
        for the default version while others are there; DeadlineExceeded if it had to be ended before all was answered.
        """
        found = self.registry.get(name, version)
        self.registry.remove(found)
        try:
            is_drained = await found.drain(timeout_seconds)
        finally:
            await found.close()
            await self._wiring.on_change()
        if not is_drained:
            raise DeadlineExceeded(
                f"Timed out while cleaning resources: {name}: its workers did not finish within {timeout_seconds:g} s "
                "and were ended"
            )
        return found.version

    def abort(self) -> None:
        """End every version now: requests that are not answered yet get an error. Never blocks."""
        for version in self._running:
            version.abort()

    async def _live(self, version: PredictionVersion) -> None:
        try:
            await version.run()
        finally:
            self._running.discard(version)
            self._forget_series(version)

    def _forget_series(self, version: PredictionVersion) -> None:
        """Let a version that is gone be seen in no metric any more, unless another one has its name by now."""
        others = [] if version.name not in self.registry else self.registry.versions(version.name)
        if all(other.version != version.version for other in others):
            version.meters.version_left(is_last=not others)

    async def _started(self, version: PredictionVersion, options: RegisterOptions) -> bool:
        if not options.is_synchronous or not version.settings.min_workers:
            return version.settings.min_workers == 0
        try:
            return await version.wait_scaled(version.settings.startup_timeout_seconds + _GRACE_SECONDS)
        except ArgosyError as error:
            self.registry.take_back(version)
            await version.close()
            await self._wiring.on_change()
            if not isinstance(error, EngineError) or isinstance(error, OutOfResources):
                raise
            raise StartFailed(version.name, version.version, error) from error

    def _make_version(self, options: RegisterOptions, opened: OpenedModel) -> PredictionVersion:
        archive = opened.archive
        settings = _settings_as_asked(opened.settings, options)
        name = archive.manifest.model.model_name
        return PredictionVersion(
            Birth(
                name=name,
                archive=archive,
                settings=settings,
                make_predictor=lambda seat: self._wiring.make_predictor(archive, settings, seat),
                next_seat=lambda: next(self._seats),
                meters=self._wiring.make_meters(name, archive.manifest.model.model_version),
                is_loaded_at_startup=options.is_loaded_at_startup,
                clock=self._clock,
            )
        )


def _settings_as_asked(settings: VersionSettings, options: RegisterOptions) -> VersionSettings:
    asked = {
        name: value
        for name in ("batch_size", "max_batch_delay_seconds", "response_timeout_seconds", "startup_timeout_seconds")
        if (value := getattr(options, name)) is not None
    }
    if options.initial_workers is not None:
        asked["min_workers"] = options.initial_workers
        asked["max_workers"] = options.initial_workers
    merged = msgspec.structs.replace(settings, **asked)
    _check_scale(merged.min_workers, max(merged.max_workers, merged.min_workers))
    return merged


def _check_scale(least: int, most: int) -> None:
    if least < 0 or most < 0:
        raise InvalidRequest(f"min_worker {least} and max_worker {most} must not be negative", param="min_worker")
    if most < least:
        raise InvalidRequest("max_worker cannot be less than min_worker.", param="max_worker")
    if least > _MAX_WORKERS:
        raise InvalidRequest(f"min_worker {least} is more than {_MAX_WORKERS}", param="min_worker")
