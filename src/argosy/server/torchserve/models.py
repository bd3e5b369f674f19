"""The models of one server and what runs them: opened archives on one side, predictors on the other.

Which predictor an archive gets is decided here and nowhere else: a preset by its handler's name, which answers inside
this process, or a worker process with the archive's own code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec

from argosy.artifacts.archives.collecting import users_lock
from argosy.artifacts.locks import held
from argosy.core.errors import SpecError
from argosy.core.interfaces import Predictor
from argosy.core.model_archive import ModelArchive, VersionSettings
from argosy.core.torchserve_spec import TorchServeSpec
from argosy.handlers.nursery import Nursery
from argosy.handlers.options import HandlerOptions
from argosy.handlers.predictor import WorkerPredictor
from argosy.handlers.worker.messages import DeclaredMetric
from argosy.observe.metrics_file import read_metrics_file
from argosy.observe.torchserve_metrics import TorchServeMeters
from argosy.server.torchserve.opening import ModelOpening
from argosy.server.torchserve.presets import PRESETS, PresetPredictor, preset_models
from argosy.server.translation import CONFIG_SECTION, TranslationModel, languages_of
from argosy.serving.predictions.administration import Administration, Wiring
from argosy.serving.predictions.registry import PredictionRegistry
from argosy.serving.registry import ModelRegistry


class TorchServeModels(msgspec.Struct, frozen=True):
    """administration: what the APIs call. opening: where archives are. served: models behind the OpenAI API as well."""

    administration: Administration
    opening: ModelOpening
    served: ModelRegistry

    def translations(self) -> list[TranslationModel]:
        """The models the translation page lets choose from: presets, and those whose model-config.yaml says so."""
        registry = self.administration.registry
        found = []
        for name in registry.names():
            archive = registry.get(name).archive
            if CONFIG_SECTION in (archive.manifest.model.handler, *archive.config):
                with suppress(SpecError):  # The handler's own section of that name, in another shape.
                    found.append(TranslationModel(name=name, languages=languages_of(archive.config)))
        return found

    def cut_off(self) -> None:
        """End every request that is not answered yet, each with an error."""
        self.administration.abort()


@asynccontextmanager
async def open_models(
    spec: TorchServeSpec,
    meters: TorchServeMeters,
    on_change: Callable[[TorchServeModels], Awaitable[None]],
) -> AsyncIterator[TorchServeModels]:
    """A server's models, none yet. Leaving ends every worker. Raises: SpecError."""
    opening = ModelOpening(spec)
    served = ModelRegistry()
    presets = preset_models(spec, served, meters.metrics)
    async with AsyncExitStack() as stack:
        # `argosy archive gc` takes nothing away while this is held. A store on a read-only disk needs no lock.
        with suppress(OSError):
            await stack.enter_async_context(held(users_lock(opening.places.unpacked), shared=True))
        nursery = Nursery(handler_options(spec))
        stack.push_async_callback(nursery.close)

        def make_predictor(archive: ModelArchive, settings: VersionSettings, seat: int) -> Predictor:
            preset = PRESETS.get(archive.manifest.model.handler)
            if preset is not None:
                return PresetPredictor(preset, archive, presets)
            return WorkerPredictor(archive, settings, seat, nursery)

        async def changed() -> None:
            await on_change(models)

        wiring = Wiring(
            open_model=opening.open, make_predictor=make_predictor, make_meters=meters.of_version, on_change=changed
        )
        administration = await stack.enter_async_context(Administration(wiring, registry=PredictionRegistry()))
        models = TorchServeModels(administration, opening, served)
        yield models


def handler_options(spec: TorchServeSpec) -> HandlerOptions:
    """What holds for all workers. Raises: SpecError for a metrics.yaml that is wrong."""
    config = spec.metrics_settings.config
    rows = read_metrics_file(config) if config is not None else ()
    return HandlerOptions(
        passed_variables=spec.worker_variables,
        decodes_input=spec.handlers.decode_input,
        service_envelope=spec.handlers.envelope,
        limits_image_pixels=spec.handlers.limit_max_image_pixels,
        declared_metrics=tuple(
            DeclaredMetric(name=row.name, unit=row.unit, kind=row.kind.value, dimensions=row.labels) for row in rows
        ),
    )
