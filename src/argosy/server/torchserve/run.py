"""The life of a server with TorchServe's APIs: bind, load, serve, drain, stop. `argosy serve --torchserve` runs it.

start   all three sockets are bound first (a taken port is known before a model is loaded); probes answer 503 until
        every archive was tried; one that is bad is told with its reason and the others serve
drain   SIGTERM or ^C: /readyz and /ping turn at once; predictions are served on, for the lame-duck time to everyone
        and then to who is connected, each answer with `Connection: close` (draining.py); exit 0
abort   a second signal, or the end of the grace period: who still waits gets a typed answer; exit 1 after a signal
worker  one that dies is replaced (serving.predictions); nothing a worker does ends the server
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime

import uvloop

import argosy
from argosy.core.torchserve_spec import TorchServeSpec, check_torchserve_spec
from argosy.protocols.torchserve import Api, rejection
from argosy.server.phases import StartPhases
from argosy.server.torchserve.app import Apis, AppWiring, listeners, open_to_others
from argosy.server.torchserve.draining import serve_to_the_end
from argosy.server.torchserve.loading import Loaded, load_all, wanted
from argosy.server.torchserve.meters import open_meters, watch_queues
from argosy.server.torchserve.models import TorchServeModels, open_models
from argosy.server.torchserve.snapshots import Snapshots
from argosy.server.translate_page import PAGE_PATH
from argosy.web.lifecycle import Lifecycle
from argosy.web.listener import Listener, bind
from argosy.web.process import allow_open_files, calm_collector, start_logging
from argosy.web.stopping import EXIT_DONE, LAST_WORDS_SECONDS, Stopping, say

logger = logging.getLogger(__name__)


def serve_torchserve(spec: TorchServeSpec, properties: Mapping[str, str]) -> int:
    """Serve until told to stop; the process exit code. properties: what snapshots shall repeat.

    Raises: SpecError at the start.
    """
    check_torchserve_spec(spec)
    start_logging(spec)
    allow_open_files()
    with ExitStack() as stack:
        bound = {
            apis: stack.enter_context(bind(spec.at(address), port_flag=f"{min(apis)}_address"))
            for apis, address in listeners(spec).items()
        }
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_Life(spec, bound, properties).run())


class _Life:
    """One run of the server."""

    def __init__(
        self, spec: TorchServeSpec, bound: Mapping[Apis, socket.socket], properties: Mapping[str, str]
    ) -> None:
        self._spec = spec
        self._meters = open_meters(spec.metrics_settings)
        self._metrics = self._meters.metrics
        self._phases = StartPhases(say)
        self._lifecycle = Lifecycle("models are loading", serves_while_draining=True)
        self._lifecycle.start_seconds = self._phases.so_far
        self._stopping = Stopping()
        places = listeners(spec)
        self._listeners = {
            apis: Listener(spec.at(places[apis]), each, self._metrics, rejection=rejection)
            for apis, each in bound.items()
        }
        self._snapshots = Snapshots(spec.snapshot_dir, properties) if spec.snapshot_dir is not None else None

    async def run(self) -> int:
        """Start, serve, stop. Cancels: everything is closed."""
        self._stopping.listen()
        self._metrics.gauge("argosy_build_info", argosy.__version__).set(1)
        async with AsyncExitStack() as stack:
            models = await stack.enter_async_context(open_models(self._spec, self._meters, self._changed))
            watch_queues(self._meters, models.administration.registry)
            with self._phases.phase("listen"):
                wiring = AppWiring(self._spec, models, self._lifecycle, self._metrics)
                for apis, listener in self._listeners.items():
                    await listener.start(wiring.edge(apis))
                    stack.push_async_callback(listener.stop, LAST_WORDS_SECONDS)
            loaded = await self._load(models)
            if loaded is None:
                return EXIT_DONE
            await self._announce(models, loaded)
            await self._stopping.stop.wait()
            self._lifecycle.drain()
            await self._write_snapshot(models, "shutdown")
            return await self._stopping.drain(
                self._lifecycle, self._spec.shutdown_grace_seconds, models.cut_off, self._serve_to_the_end
            )

    async def _serve_to_the_end(self) -> None:
        await serve_to_the_end(self._listeners.values(), self._spec.lame_duck_seconds)

    async def _load(self, models: TorchServeModels) -> list[Loaded] | None:
        """How every archive went, or None if told to stop meanwhile."""
        archives = wanted(self._spec, models.opening.locations.all())
        loading = asyncio.create_task(load_all(models.administration, archives, self._phases))
        stopping = asyncio.create_task(self._stopping.stop.wait())
        heartbeat = asyncio.create_task(self._phases.heartbeat())
        try:
            await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (loading, stopping, heartbeat):
                task.cancel()
            await asyncio.wait((loading, stopping, heartbeat))
        return None if loading.cancelled() else loading.result()

    async def _announce(self, models: TorchServeModels, loaded: list[Loaded]) -> None:
        self._phases.publish(self._metrics)
        calm_collector()
        self._lifecycle.ready()
        await self._write_snapshot(models, "startup")
        say("\n".join(self._phases.table()))
        for each in loaded:
            if each.fault:
                state = f"{each.name} {each.version} does not answer yet" if each.name else "not loaded"
                say(f"{state} ({each.wanted.url}): {each.fault}")
            else:
                say(f"loaded: {each.name} {each.version} ({each.wanted.url}), workers: {each.num_workers}")
        if not loaded:
            say("no model is loaded: pass --load-models all, or register one with POST /models?url=NAME.mar")
        if warning := open_to_others(self._spec):
            say(warning)
        for apis, listener in self._listeners.items():
            say(f"{', '.join(sorted(apis))}: {listener.url}")
            if Api.INFERENCE in apis and models.translations():
                say(f"translation page: {listener.url}{PAGE_PATH}")
        say("Model server started.")
        logger.info("ready", extra={"models": len(loaded), "url": next(iter(self._listeners.values())).url})

    async def _changed(self, models: TorchServeModels) -> None:
        if self._lifecycle.is_ready:
            await self._write_snapshot(models, "snapshot")

    async def _write_snapshot(self, models: TorchServeModels, moment: str) -> None:
        if self._snapshots is not None:
            administration = models.administration
            versions = [row for name in administration.registry.names() for row in administration.describe(name, "all")]
            await asyncio.to_thread(self._snapshots.write, versions, moment, datetime.now(UTC))
