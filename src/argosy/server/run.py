"""The life of one replica: bind, load, serve, drain, stop. `serve` is what `argosy serve` runs.

start   the socket is bound first (a taken port is known before a model is loaded) and listens at once: probes
        answer 503 "starting" until the model is loaded
drain   SIGTERM or ^C: /readyz is 503 at once, new requests get 503 and `Connection: close`, open ones run to
        their end within the grace period; exit 0
abort   a second signal, or the end of the grace period: open streams get a last error event; exit 0 after the
        grace period, 1 after a second signal
dead    the engine cannot serve: the same as abort, exit 1, so that whoever supervises us starts a new replica
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import AsyncExitStack

import uvloop

import argosy
from argosy.core.errors import EngineDead
from argosy.core.serve_spec import ServeSpec, check_serve_spec
from argosy.observe.metrics import Metrics
from argosy.server.app import build_app
from argosy.server.composition import open_served_model
from argosy.server.phases import StartPhases
from argosy.server.replica import Replica
from argosy.server.translate_page import PAGE_PATH
from argosy.serving.served_model import ServedModel
from argosy.web.lifecycle import Phase
from argosy.web.listener import Listener, bind
from argosy.web.process import allow_open_files, calm_collector, first_of, start_logging
from argosy.web.stopping import EXIT_DONE, EXIT_FAILED, LAST_WORDS_SECONDS, Stopping, last_words, say

logger = logging.getLogger(__name__)

_HEALTH_SECONDS = 1.0
_HEALTH_PATIENCE_SECONDS = 5.0


def serve(spec: ServeSpec) -> int:
    """Serve until told to stop; the process exit code. Raises: SpecError, ArtifactError, EngineError at the start."""
    check_serve_spec(spec)
    start_logging(spec)
    allow_open_files()
    bound = bind(spec)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_Life(spec, bound).run())
    finally:
        bound.close()


class _Life:
    """One run of a replica."""

    def __init__(self, spec: ServeSpec, bound: socket.socket) -> None:
        self._spec = spec
        self._metrics = Metrics()
        self._phases = StartPhases(say)
        self._replica = Replica(self._phases.so_far)
        self._listener = Listener(spec, bound, self._metrics)
        self._stopping = Stopping()

    async def run(self) -> int:
        """Start, serve, stop. Cancels: everything is closed."""
        self._stopping.listen()
        self._metrics.gauge("argosy_build_info", argosy.__version__).set(1)
        async with AsyncExitStack() as stack:
            with self._phases.phase("listen"):
                await self._listener.start(build_app(self._spec, self._replica, self._metrics).edge)
            stack.push_async_callback(self._listener.stop, LAST_WORDS_SECONDS)
            served = await self._load(stack)
            if served is None:
                return EXIT_DONE
            self._announce(served)
            return await self._serve(served)

    async def _load(self, stack: AsyncExitStack) -> ServedModel | None:
        """The model, or None if told to stop meanwhile."""
        opening = asyncio.create_task(
            stack.enter_async_context(open_served_model(self._spec, metrics=self._metrics, phases=self._phases))
        )
        stopping = asyncio.create_task(self._stopping.stop.wait())
        heartbeat = asyncio.create_task(self._phases.heartbeat())
        try:
            await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (opening, stopping, heartbeat):
                task.cancel()
            await asyncio.wait((opening, stopping, heartbeat))
        return None if opening.cancelled() else opening.result()

    def _announce(self, served: ServedModel) -> None:
        self._replica.registry.add(served, aliases=self._spec.served_model_name[1:])
        self._phases.publish(self._metrics)
        calm_collector()
        self._replica.ready()
        info = served.engine_info
        say("\n".join(self._phases.table()))
        say(
            f"{served.name} on {info.name} {info.version} ({info.device}): context {served.max_model_len}, "
            f"batch {info.max_num_seqs}, KV cache {info.kv_cache_tokens} tokens"
        )
        page = f"translation page: {self._listener.url}{PAGE_PATH}" if served.info.is_encoder_decoder else ""
        say(f"ready: {self._listener.url}/v1  ({page or f'chat page: {self._listener.url}/'})")
        logger.info("ready", extra={"model": served.name, "url": self._listener.url})

    async def _serve(self, served: ServedModel) -> int:
        watching = asyncio.create_task(self._watch(served))
        try:
            await first_of(self._stopping.stop.wait(), self._replica.wait_dead())
            if self._replica.phase is Phase.DEAD:
                return await self._end_dead(served)
            return await self._drain(served)
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _drain(self, served: ServedModel) -> int:
        """Let what runs end; abort it after the grace period or at a second signal."""

        def cut_off() -> None:
            served.abort_all(EngineDead("the server is stopping: send the request to another replica"))

        return await self._stopping.drain(self._replica, self._spec.shutdown_grace_seconds, cut_off)

    async def _end_dead(self, served: ServedModel) -> int:
        """The engine is gone: answer who still waits, then leave with a code that asks for a new process."""
        logger.error("engine dead", extra={"reason": self._replica.reason})
        served.abort_all(EngineDead(self._replica.reason))
        await last_words(self._replica)
        return EXIT_FAILED

    async def _watch(self, served: ServedModel) -> None:
        """Ask the engine every second how it is; one that is dead, or does not say, ends the replica (F-04)."""
        while True:
            await asyncio.sleep(_HEALTH_SECONDS)
            try:
                async with asyncio.timeout(_HEALTH_PATIENCE_SECONDS):
                    await served.check_health()
            except EngineDead as error:
                self._replica.die(error.message)
            except TimeoutError:
                self._replica.die(f"the engine has not answered for {_HEALTH_PATIENCE_SECONDS:.0f} s")
