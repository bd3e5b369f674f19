"""The control plane's process: state, store, backend, loop and API, put together; `argosy control` is this alone.

start   the lock is taken and the port bound before anything else; what runs already is adopted, not started again
run     the loop keeps what runs equal to what is declared; the API answers
stop    SIGTERM or ^C: the loop stops, open watches end, replicas stay unless told otherwise
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import msgspec
import uvloop

import argosy
from argosy.api.app import build_api
from argosy.api.local_state import announced, held, prepare
from argosy.api.loop_metrics import LoopMetrics
from argosy.api.plane import ControlPlane
from argosy.backends import BACKENDS, BackendSpec
from argosy.control.loop import ControlLoop
from argosy.control.settings import ControlSettings
from argosy.core.control_spec import ControlSpec
from argosy.core.errors import ArgosyError
from argosy.core.interfaces import Backend
from argosy.core.plugins import resolve
from argosy.core.state_dir import ControlAddress, StateDir, default_state_dir
from argosy.core.web_spec import check_web_spec
from argosy.core.workload import ReplicaPhase
from argosy.observe.metrics import Metrics
from argosy.stores.sqlite import SqliteStore
from argosy.web.lifecycle import Lifecycle
from argosy.web.listener import Listener, bind
from argosy.web.process import allow_open_files, calm_collector, ended, first_of, start_logging
from argosy.web.stopping import EXIT_DONE, EXIT_FAILED, LAST_WORDS_SECONDS, Stopping, last_words, say

logger = logging.getLogger(__name__)

_HURRY_SECONDS = 0.5

# What runs beside the control plane in its process, while it runs: (backend, its URL) → a context.
Companion = Callable[[Backend, str], AbstractAsyncContextManager[str]]


def run_control(spec: ControlSpec) -> int:
    """Run the control plane until told to stop; the exit code. Raises: SpecError, Conflict, StoreError."""
    return run_with(spec, _alone)


def run_with(spec: ControlSpec, companion: Companion, *, port_flag: str = "--port") -> int:
    """Run the control plane and what `companion` starts on its backend. port_flag: what the command calls its port."""
    state = StateDir(spec.state) if spec.state is not None else default_state_dir()
    check_web_spec(spec)
    start_logging(spec)
    allow_open_files()
    prepare(state)
    # The state's own key always opens the API: commands of the same user and the gateway hold it.
    key = state.admin_key.read_text(encoding="ascii").strip()
    keys_file = spec.api_keys_file or state.admin_keys_file
    spec = msgspec.structs.replace(spec, api_keys_file=keys_file, api_keys=(*spec.api_keys, key))
    with held(state):
        bound = bind(spec, port_flag=port_flag)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_Life(spec, state, bound).run(companion))
        finally:
            bound.close()


@asynccontextmanager
async def _alone(_: Backend, __: str) -> AsyncIterator[str]:
    yield ""


class _Life:
    """One run of a control plane."""

    def __init__(self, spec: ControlSpec, state: StateDir, bound: socket.socket) -> None:
        self._spec = spec
        self._state = state
        self._metrics = Metrics()
        self._lifecycle = Lifecycle(starting="the control plane is reading its state")
        self._listener = Listener(spec, bound, self._metrics)
        self._stopping = Stopping()

    async def run(self, companion: Companion) -> int:
        """Serve until a signal. Cancels: everything is closed."""
        self._stopping.listen()
        self._metrics.gauge("argosy_build_info", argosy.__version__).set(1)
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(SqliteStore(self._state.store))
            backend = await stack.enter_async_context(self._hurried_backend())
            loop = ControlLoop(store, backend, self._settings(), observer=LoopMetrics(self._metrics))
            plane = ControlPlane(store, backend, loop)
            replica_key = self._state.replica_key.read_text(encoding="ascii").strip()
            api = build_api(self._spec, plane, self._metrics, self._lifecycle, replica_key=replica_key)
            await self._listener.start(api.edge)
            stack.push_async_callback(self._listener.stop, LAST_WORDS_SECONDS)
            say(f"control plane: {self._listener.url}  (console; its key: {self._state.admin_key})")
            looping = asyncio.create_task(loop.run())
            stack.push_async_callback(_cancelled, looping)
            self._lifecycle.ready()
            calm_collector()
            stack.enter_context(announced(self._state, self._address("")))
            gateway_url = await stack.enter_async_context(companion(backend, self._listener.url))
            stack.enter_context(announced(self._state, self._address(gateway_url)))
            logger.info("ready", extra={"url": self._listener.url})
            await first_of(self._stopping.stop.wait(), ended(looping))
            if looping.done():
                looping.result()
            say("stopping: open requests are finished first (a second signal aborts them)")
            self._lifecycle.drain()
            plane.end_watches()
            await last_words(self._lifecycle)
        return EXIT_FAILED if self._stopping.abort.is_set() else EXIT_DONE

    @asynccontextmanager
    async def _hurried_backend(self) -> AsyncIterator[Backend]:
        """The backend; while it closes, a second signal aborts what drains there."""
        hurry: asyncio.Task[None] | None = None
        try:
            async with self._open_backend() as backend:
                hurry = asyncio.create_task(_hurry(backend, self._stopping.abort))
                yield backend
        finally:
            if hurry is not None:
                await _cancelled(hurry)

    def _open_backend(self) -> AbstractAsyncContextManager[Backend]:
        spec = BackendSpec(
            root=self._state.backend,
            logs=self._state.logs,
            devices=self._spec.devices,
            stop_replicas=self._spec.stop_replicas,
        )
        opened: AbstractAsyncContextManager[Backend] = resolve(BACKENDS, self._spec.backend, "backend")(spec)
        return opened

    def _settings(self) -> ControlSettings:
        return ControlSettings(
            replica_keys_file=self._state.replica_keys_file.absolute(),
            resync_seconds=self._spec.resync_seconds,
            scaling_period_seconds=self._spec.scaling_period_seconds,
        )

    def _address(self, gateway_url: str) -> ControlAddress:
        return ControlAddress(url=self._listener.url, gateway_url=gateway_url, process_id=os.getpid())


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await ended(task)


async def _hurry(backend: Backend, abort: asyncio.Event) -> None:
    """Once told to abort: a second SIGTERM to everything that drains, which ends its open requests at once."""
    await abort.wait()
    with suppress(ArgosyError):
        while True:
            for replica in (each for status in await backend.list() for each in status.replicas):
                if replica.phase is ReplicaPhase.DRAINING and replica.process_id is not None:
                    with suppress(ProcessLookupError):
                        os.kill(replica.process_id, signal.SIGTERM)
            await asyncio.sleep(_HURRY_SECONDS)
