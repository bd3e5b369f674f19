"""A gateway on a loopback port, in front of scripted replicas (`scripted.py`)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.core.control_spec import GatewaySpec
from argosy.core.web_spec import LimitsSpec

sys.path.insert(0, str(Path(__file__).parent))

from scripted import LiveGateway, ScriptedReplica

Start = Callable[..., AbstractAsyncContextManager[LiveGateway]]
Replicas = Callable[..., Awaitable[list[ScriptedReplica]]]


@pytest.fixture
def live() -> Start:
    """`async with live(field=value…) as gateway:`; `limits={…}` fills LimitsSpec; `draw` fixes chance."""

    @asynccontextmanager
    async def start(
        *,
        limits: dict[str, Any] | None = None,
        draw: Callable[[], float] | None = None,
        report_seconds: float = 0.02,
        **fields: Any,
    ) -> AsyncIterator[LiveGateway]:
        spec = GatewaySpec(
            port=0, report_seconds=report_seconds, limits=msgspec.convert(limits or {}, LimitsSpec), **fields
        )
        server = LiveGateway(spec, draw)
        await server.listener.start(server.gateway.edge)
        running = asyncio.create_task(server.gateway.run(server.link))
        try:
            yield server
        finally:
            running.cancel()
            await asyncio.wait([running])
            await server.client.aclose()
            await server.listener.stop(1.0)
            await server.transport.close()

    return start


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    """`a, b = await replicas("a", "b")`: scripted replicas, stopped at the end."""
    started: list[ScriptedReplica] = []

    async def start(*names: str) -> list[ScriptedReplica]:
        for name in names:
            replica = ScriptedReplica(name)
            await replica.start()
            started.append(replica)
        return started[-len(names) :]

    yield start
    for replica in started:
        await replica.stop()
