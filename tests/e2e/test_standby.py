"""A standby process becomes a replica with real weights. Nothing cheaper shows that both its processes do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from argosy.core.model import ModelFiles

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SECONDS = 60.0


@asynccontextmanager
async def standby() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "argosy.cli.main", "standby"),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_a_standby_serves_what_it_is_told_with_the_child_it_had(smollm2_files: ModelFiles) -> None:
    async with asyncio.timeout(SECONDS), standby() as process, httpx.AsyncClient() as client:
        assert process.stdin is not None
        assert process.stderr is not None
        role = {"argv": ["serve", "smollm2", "--port", "0", "--max-model-len", "256"]}
        process.stdin.write(msgspec.json.encode(role) + b"\n")
        while not (line := (await process.stderr.readline()).decode()).startswith("ready: "):
            assert line
        url = line.split()[1]
        assert len(children(process.pid)) == 1
        answer = await client.post(f"{url}/completions", json={"prompt": "One, two,", "max_tokens": 4}, timeout=30)
        assert answer.json()["usage"]["completion_tokens"] == 4
        parts = (await client.get(url.removesuffix("v1") + "readyz")).json()["start_seconds"]
        assert parts["engine openvino: weights"] > 0
        process.terminate()
        await process.stderr.read()
        assert await process.wait() == 0


async def test_without_a_role_it_ends_with_its_input_and_so_does_its_child() -> None:
    async with asyncio.timeout(SECONDS), standby() as process:
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0
