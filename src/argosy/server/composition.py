"""From a spec to a served model: files, tokenizer, chat template and engine, loaded side by side.

Used by the server and by `argosy infer`, which answers prompts in its own process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from argosy.artifacts.fetch import fetch
from argosy.artifacts.progress import FetchProgress
from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.store import ModelStore, default_store_root
from argosy.core.adapter import Adapter
from argosy.core.errors import EngineError, SpecError
from argosy.core.interfaces import AdapterSupport, Engine, StartReports
from argosy.core.model import ModelFiles, require_name
from argosy.core.plugins import resolve
from argosy.core.serve_spec import ServeSpec
from argosy.engines import ENGINES, default_engine
from argosy.observe.metrics import Metrics
from argosy.server.phases import StartPhases
from argosy.serving.admission_policy import AdmissionLimits
from argosy.serving.served_model import Identity, Language, ServedModel
from argosy.text.chat_template import load_chat_template
from argosy.text.tokenizer import load_tokenizer


def _silent(_: str) -> None:
    """Nobody waits."""


@asynccontextmanager
async def open_served_model(
    spec: ServeSpec, *, metrics: Metrics | None = None, phases: StartPhases | None = None
) -> AsyncIterator[ServedModel]:
    """The spec's model, ready to answer; its engine is closed on exit.

    Cancels: what was started is closed again. Raises: ArtifactError, SpecError, EngineError, NotFound.
    """
    phases = phases or StartPhases(_silent)
    files = await _fetch(spec, phases)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.TaskGroup() as loading:
                started = loading.create_task(_start_engine(spec, files, phases, stack))
                language = loading.create_task(_load_language(files, phases))
        except ExceptionGroup as group:
            raise _innermost(group) from None
        engine = started.result()
        served = _served(spec, files, engine, language.result(), metrics or Metrics())
        await _load_adapters(spec, engine, served)
        yield served


def _innermost(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _innermost(first) if isinstance(first, ExceptionGroup) else first


async def _fetch(spec: ServeSpec, phases: StartPhases) -> ModelFiles:
    store = ModelStore(spec.store or default_store_root())

    def show(progress: FetchProgress) -> None:
        phases.detail("model files", progress_text(progress))

    with phases.phase("model files"):
        return await fetch(
            parse_model_ref(spec.model),
            store,
            on_progress=show,
            allow_sources=spec.allow_sources,
            network=spec.network,
        )


def progress_text(progress: FetchProgress) -> str:
    """How far a fetch is, in one line: phase, file, bytes, rate and time left."""
    done = f"{progress.bytes_done / 1e6:.0f}"
    total = f"/{progress.bytes_total / 1e6:.0f}" if progress.bytes_total else ""
    left = f", {progress.eta_seconds:.0f} s left" if progress.eta_seconds is not None else ""
    rate = f", {progress.bytes_per_second / 1e6:.1f} MB/s"
    return f"{progress.phase.value} {progress.file} {done}{total} MB{rate}{left}"


async def _load_language(files: ModelFiles, phases: StartPhases) -> Language:
    def load() -> Language:
        with phases.phase("tokenizer"):
            tokenizer = load_tokenizer(files)
            return Language(tokenizer=tokenizer, chat_template=load_chat_template(files, tokenizer))

    return await asyncio.to_thread(load)


async def _start_engine(spec: ServeSpec, files: ModelFiles, phases: StartPhases, stack: AsyncExitStack) -> Engine:
    name = spec.engine or default_engine(files)
    settings = spec.engine_settings
    if settings.cache_dir is None:
        store = ModelStore(spec.store or default_store_root())
        settings = msgspec.structs.replace(settings, cache_dir=store.engine_cache_dir(files.digest))

    def build() -> Engine:
        try:
            engine: Engine = resolve(ENGINES, name, "engine")(files, settings)
        except ModuleNotFoundError as error:
            raise EngineError(
                f"the {name} engine needs {error.name}, which is not installed: run pip install 'argosy[{name}]', "
                "or choose another --engine"
            ) from error
        return engine

    with phases.phase(f"engine {name}"):
        engine = await asyncio.to_thread(build)
        stack.push_async_callback(engine.close)
        if isinstance(engine, StartReports):
            engine.report_start(lambda activity: phases.detail(f"engine {name}", activity))
        await engine.start()
    if isinstance(engine, StartReports):
        phases.seconds |= {f"engine {name}: {part}": seconds for part, seconds in engine.start_seconds.items()}
    return engine


def _served(spec: ServeSpec, files: ModelFiles, engine: Engine, language: Language, metrics: Metrics) -> ServedModel:
    identity = Identity(
        name=spec.served_model_name[0] if spec.served_model_name else served_name(spec.model),
        root=str(files.ref),
        created=int(time.time()),
        info=files.info,
    )
    limits = AdmissionLimits(
        max_running=engine.info.max_num_seqs,
        max_waiting=spec.limits.max_waiting,
        max_waiting_tokens=spec.limits.max_waiting_tokens,
        max_queue_seconds=spec.limits.max_queue_seconds,
    )
    return ServedModel(
        identity,
        engine,
        language,
        metrics=metrics,
        limits=limits,
        deadline_seconds=spec.limits.deadline_seconds,
    )


def served_name(model: str) -> str:
    """The name clients use when none is given: the reference without scheme, revision, directories and suffix.

    `hf:org/name@rev` → `org/name`, as vLLM does; `/models/x.gguf` → `x`; `smollm2` → `smollm2`.
    """
    scheme, _, rest = model.partition(":")
    location = (rest or scheme).partition("@")[0]
    is_hub = scheme in ("hf", "ms") and bool(rest)
    return location if is_hub else Path(location.rstrip("/")).stem or location


async def _load_adapters(spec: ServeSpec, engine: Engine, served: ServedModel) -> None:
    if not spec.adapters:
        return
    if not isinstance(engine, AdapterSupport):
        raise SpecError(
            f"the {engine.info.name!r} engine serves no LoRA adapters: leave out {', '.join(spec.adapters)}, "
            "or choose another --engine"
        )
    for name, path in spec.adapters.items():
        adapter = Adapter(name=require_name(name, "adapter"), path=path.absolute(), base=served.name)
        await engine.load_adapter(adapter)
        served.add_adapter(adapter)
