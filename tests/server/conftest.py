"""A whole replica on a loopback port, with the echo engine, spoken to through raw sockets or httpx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest

from argosy.core.engine import EngineSettings
from argosy.core.model import ModelFiles
from argosy.core.serve_spec import ServeSpec
from argosy.core.web_spec import LimitsSpec
from argosy.engines.echo import EchoEngine
from argosy.observe.metrics import Metrics
from argosy.server.app import App, build_app
from argosy.server.replica import Replica
from argosy.serving.served_model import Identity, Language, ServedModel
from argosy.text.chat_template import load_chat_template
from argosy.text.tokenizer import load_tokenizer
from argosy.web.listener import Listener, bind


class Live:
    """A running replica and everything a test may look at."""

    def __init__(self, spec: ServeSpec, files: ModelFiles, steps_per_second: float) -> None:
        self.spec = spec
        self.metrics = Metrics()
        self.replica = Replica()
        self.app: App = build_app(spec, self.replica, self.metrics)
        self.listener = Listener(spec, bind(spec), self.metrics)
        settings = EngineSettings(engine_args={"steps_per_second": steps_per_second})
        self.engine = EchoEngine(files, settings)
        tokenizer = load_tokenizer(files)
        self.served = ServedModel(
            Identity(name="letters", root="file:letters", created=1, info=files.info),
            self.engine,
            Language(tokenizer=tokenizer, chat_template=load_chat_template(files, tokenizer)),
            metrics=self.metrics,
        )
        self.replica.registry.add(self.served)

    @property
    def url(self) -> str:
        return self.listener.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def idle(self) -> None:
        """Return once the engine runs nothing; fails if that takes longer than a second."""
        async with asyncio.timeout(1):
            while self.engine.stats().num_requests_running:  # noqa: ASYNC110  # the engine has no event for it
                await asyncio.sleep(0.005)

    async def send(self, raw: bytes, *, wait_for: bytes | None = None) -> bytes:
        """Send bytes on a connection of their own and read until it closes, or until `wait_for` came."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        received = b""
        try:
            async with asyncio.timeout(5):
                while chunk := await reader.read(65536):
                    received += chunk
                    if wait_for is not None and wait_for in received:
                        break
        except ConnectionResetError:
            pass
        finally:
            writer.close()
        return received


Start = Callable[..., AbstractAsyncContextManager[Live]]


@pytest.fixture
def live(letters_files: ModelFiles) -> Start:
    """`async with live(field=value…) as server:`; `limits={…}` fills LimitsSpec."""

    @asynccontextmanager
    async def start(
        *, limits: dict[str, Any] | None = None, steps_per_second: float = 0, **fields: Any
    ) -> AsyncIterator[Live]:
        spec = ServeSpec(model="letters", port=0, limits=msgspec.convert(limits or {}, LimitsSpec), **fields)
        server = Live(spec, letters_files, steps_per_second)
        await server.listener.start(server.app.edge)
        server.replica.ready()
        try:
            yield server
        finally:
            await server.listener.stop(1.0)

    return start
