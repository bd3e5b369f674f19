"""A gateway as a process: what signals do. A cheaper test cannot send any."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from scripted import DONE, ScriptedReplica, eventually, stream

from argosy.core.control_spec import GatewaySpec
from argosy.core.errors import SpecError
from argosy.gateway.run import serve_gateway, upstream_settings

EVENTS = ("data: one\n\n", "data: two\n\n", DONE)


@asynccontextmanager
async def process_before(
    replica: ScriptedReplica,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    """A running gateway and a client of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    child = Path(__file__).with_name("static_child.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(child), str(port), replica.address, stderr=asyncio.subprocess.PIPE
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        try:
            await said(process, b"/v1")
            yield process, client
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def said(process: asyncio.subprocess.Process, words: bytes) -> None:
    """Return once the process has said so."""
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while words not in await process.stderr.readline():
            pass


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("times", [1, 2])
async def test_f01_sigterm_lets_streams_end_and_a_second_one_ends_them(replicas, times) -> None:
    (a,) = await replicas("a")
    a.default = stream(*EVENTS, wait_before=1)
    async with process_before(a) as (process, client):
        streams = [
            asyncio.ensure_future(client.post("/v1/chat/completions", json={"model": "chat", "stream": True}))
            for _ in range(32)
        ]
        await eventually(lambda: len(a.requests) == 32, 10)
        process.send_signal(signal.SIGTERM)
        await said(process, b"draining")
        assert (await client.get("/readyz")).status_code == 503
        if times == 1:
            a.go.set()
        else:
            process.send_signal(signal.SIGTERM)
        answers = [await each for each in streams]
        assert await process.wait() == (0 if times == 1 else 1)
    for got in answers:
        if times == 1:
            assert got.text == "".join(EVENTS)
        else:
            assert got.text.startswith(EVENTS[0] + 'data: {"error":{"message":"the gateway is stopping')
            assert got.text.count("data:") == 2


def test_a_bind_for_everyone_needs_keys_and_a_key_file_must_hold_one(tmp_path) -> None:
    with pytest.raises(SpecError, match="no API key is set"):
        serve_gateway(GatewaySpec(host="0.0.0.0"), None)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="cannot be read"):
        upstream_settings(GatewaySpec(replica_key_file=tmp_path / "none"))
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SpecError, match="holds no key"):
        upstream_settings(GatewaySpec(replica_key_file=tmp_path / "empty"))
