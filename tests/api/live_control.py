"""A whole control plane on a loopback port: the real loop, a store in memory, replicas that are rows in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from argosy.api.app import App, build_api
from argosy.api.plane import ControlPlane
from argosy.api.streams import Streams
from argosy.backends.fake import FakeBackend
from argosy.control.loop import ControlLoop
from argosy.control.settings import ControlSettings
from argosy.core.control_spec import ControlSpec
from argosy.core.inference_service import InferenceService, InferenceServiceSpec, RevisionTemplate
from argosy.core.interfaces import Store
from argosy.core.metadata import Metadata
from argosy.core.principal import Scope
from argosy.core.web_spec import LimitsSpec
from argosy.observe.metrics import Metrics
from argosy.stores.memory import MemoryStore
from argosy.web.api_keys import create_key
from argosy.web.lifecycle import Lifecycle
from argosy.web.listener import Listener, bind


def service(name: str = "chat", *, model: str = "smollm2", **spec: Any) -> InferenceService:
    declared = InferenceServiceSpec(template=RevisionTemplate(model=model), **spec)
    return InferenceService(metadata=Metadata(name=name), spec=declared)


class LiveControl:
    """A running control plane, and everything a test may look at."""

    def __init__(
        self, keys_file: Path, keys: dict[str, str], store: Store, spec: ControlSpec, streams: Streams
    ) -> None:
        self.keys = keys
        self.keys_file = keys_file
        self.store = store
        self.backend = FakeBackend()
        self.backend.start_seconds = lambda _: 0.01
        self.backend.drain_seconds = 0.01
        self.loop = ControlLoop(store, self.backend, ControlSettings(program=("argosy",), linger_seconds=0.0))
        self.plane = ControlPlane(store, self.backend, self.loop)
        self.plane.streams = streams
        self.lifecycle = Lifecycle("starting")
        self.metrics = Metrics()
        self.app: App = build_api(spec, self.plane, self.metrics, self.lifecycle)
        self.listener = Listener(spec, bind(spec), self.metrics)

    @property
    def url(self) -> str:
        return self.listener.url

    @property
    def key(self) -> str:
        return self.keys["admin"]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def http(self, key: str | None = "admin", **options: Any) -> httpx.AsyncClient:
        """A client that shows the key of a scope; None = no key."""
        headers = {"authorization": f"Bearer {self.keys[key]}"} if key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, **options)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once it holds; fails if that takes longer than five seconds."""
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110  # there is no event for everything a test may look at
                await asyncio.sleep(0.005)

    async def no_streams(self) -> None:
        """Return once no stream is open."""
        await self.until(lambda: not self.plane.streams.num_open)

    async def ready(self, name: str = "chat", replicas: int = 1) -> None:
        """Return once the loop sees so many replicas that answer."""
        await self.until(lambda: sum(len(each.ready()) for each in self.loop.world.statuses_of(name)) >= replicas)


@asynccontextmanager
async def live_control(
    directory: Path,
    *,
    store: Store | None = None,
    limits: dict[str, Any] | None = None,
    streams: Streams | None = None,
    keys: dict[str, str] | None = None,
    **fields: Any,
) -> AsyncIterator[LiveControl]:
    """`async with live_control(tmp_path) as control:`; more fields go into ControlSpec.

    keys: those of an earlier one in the same directory.
    """
    keys_file = directory / "keys.json"
    keys = keys or {scope.value: create_key(keys_file, scope.value, (scope,)) for scope in Scope}
    spec = ControlSpec(
        port=fields.pop("port", 0),
        api_keys_file=keys_file,
        limits=msgspec.convert(limits or {}, LimitsSpec),
        **fields,
    )
    control = LiveControl(keys_file, keys, store or MemoryStore(), spec, streams or Streams())
    await control.listener.start(control.app.edge)
    looping = asyncio.create_task(control.loop.run())
    control.lifecycle.ready()
    try:
        yield control
    finally:
        control.plane.end_watches()
        await control.listener.stop(1.0)
        looping.cancel()
        await asyncio.wait([looping])
        if not looping.cancelled():
            looping.result()
