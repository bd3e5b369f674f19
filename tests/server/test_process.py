"""The whole process: how it starts, drains, and refuses. Nothing cheaper covers signals, exit codes and stderr."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from argosy.core.model import ModelFiles

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

_READY = re.compile(rb"ready: (http://\S+)/v1")


class Process:
    """`argosy serve` with the echo engine, under test."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, said: bytes) -> None:
        self.process = process
        self.url = url
        self.said = said

    async def ends(self) -> tuple[int, bytes]:
        """Exit code and everything said on stderr after the start."""
        async with asyncio.timeout(20):
            assert self.process.stderr is not None
            rest = await self.process.stderr.read()
            return await self.process.wait(), rest


async def spawn(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "argosy.cli.main", "serve", *arguments,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip


@asynccontextmanager
async def serving(*arguments: str, engine: str = "echo") -> AsyncIterator[Process]:
    process = await spawn("smollm2", "--engine", engine, "--port", "0", *arguments)
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(60):
            while not (ready := _READY.search(said)):
                line = await process.stderr.readline()
                assert line, said.decode()
                said += line
        yield Process(process, ready.group(1).decode(), said)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def stream(url: str, started: asyncio.Event, max_tokens: int) -> str:
    body = {"model": "smollm2", "prompt": "a b c", "max_tokens": max_tokens, "stream": True}
    received = ""
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream("POST", f"{url}/v1/completions", json=body) as answer,
    ):
        async for chunk in answer.aiter_text():
            received += chunk
            started.set()
    return received


async def test_f01_sigterm_lets_32_streams_end_refuses_new_requests_and_exits_0(smollm2_files: ModelFiles) -> None:
    async with serving("--engine-args", "steps_per_second=100") as server, httpx.AsyncClient() as client:
        starts = [asyncio.Event() for _ in range(32)]
        streams = [asyncio.create_task(stream(server.url, started, 150)) for started in starts]
        await asyncio.gather(*(started.wait() for started in starts))
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            while (ready := await client.get(f"{server.url}/readyz")).status_code == 200:
                pass
        assert ready.json()["phase"] == "draining"
        assert (await client.get(f"{server.url}/livez")).status_code == 200
        refused = await client.post(f"{server.url}/v1/completions", json={"model": "smollm2", "prompt": "a"})
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"
        assert refused.headers["retry-after"]
        answers = await asyncio.gather(*streams)
        code, _ = await server.ends()
    assert all(answer.endswith("data: [DONE]\n\n") for answer in answers)
    assert all('"finish_reason":"length"' in answer for answer in answers)
    assert code == 0


async def test_f01_a_second_signal_ends_streams_with_an_error_event(smollm2_files: ModelFiles) -> None:
    async with serving("--engine-args", "steps_per_second=20") as server:
        started = asyncio.Event()
        reading = asyncio.create_task(stream(server.url, started, 5000))
        await started.wait()
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
        answer = await reading
        code, _ = await server.ends()
    assert '"error":{"message":"the server is stopping' in answer
    assert "[DONE]" not in answer
    assert code == 1


async def test_f01_the_grace_period_bounds_the_drain(smollm2_files: ModelFiles) -> None:
    async with serving("--engine-args", "steps_per_second=20", "--shutdown-timeout", "0.3") as server:
        started = asyncio.Event()
        reading = asyncio.create_task(stream(server.url, started, 5000))
        await started.wait()
        server.process.send_signal(signal.SIGTERM)
        answer = await reading
        code, _ = await server.ends()
    assert "the server is stopping" in answer
    assert code == 0


async def test_the_start_says_what_took_how_long(smollm2_files: ModelFiles) -> None:
    async with serving() as server:
        for phase in ("listen", "model files", "tokenizer", "engine echo", "total"):
            assert re.search(rf"^  {phase} +\d+\.\d\d s$".encode(), server.said, re.MULTILINE), phase
        server.process.send_signal(signal.SIGTERM)
        assert (await server.ends())[0] == 0


async def test_f23_a_taken_port_is_one_line_and_the_next_command(smollm2_files: ModelFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await spawn("smollm2", "--engine", "echo", "--port", str(port))
        _, stderr = await process.communicate()
    assert process.returncode == 2
    assert stderr.decode().strip().count("\n") == 0
    assert f"cannot listen on 127.0.0.1 port {port}" in stderr.decode()
    assert f"--port {port + 1}" in stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("smollm2", "--host", "0.0.0.0"), "--insecure"),
        (("smollm2", "--host", "203.0.113.9", "--insecure"), "cannot listen on 203.0.113.9"),
        (("smollm2", "--engine", "opnvino"), "did you mean 'openvino'?"),
        (("smollm2", "--api-keys-file", "/nonexistent/keys.json"), "argosy keys create"),
        (("smollm2", "--config", "/nonexistent.yaml"), "cannot be read"),
        (("smollm2", "--log-level", "loud"), "log_level"),
        (("smolm2",), "smollm2"),
        (("smollm2", "--prot", "1"), "--port"),
    ],
)
async def test_f23_mistakes_are_one_line(arguments: tuple[str, ...], said: str, smollm2_files: ModelFiles) -> None:
    process = await spawn(*arguments)
    _, stderr = await process.communicate()
    assert process.returncode == 2, stderr
    assert said in stderr.decode()
    assert stderr.decode().strip().count("\n") == 0
    assert "Traceback" not in stderr.decode()


async def test_f23_works_in_locale_c_without_a_home_to_write_and_with_odd_paths(
    tmp_path: Path, smollm2_files: ModelFiles
) -> None:
    odd = tmp_path / "with space 中文"
    odd.mkdir()
    config = odd / "serve.yaml"
    config.write_text(f"uds: {odd / 'server.sock'}\nserved_model_name: [tiny]\n", encoding="utf-8")
    process = await spawn("smollm2", "--engine", "echo", "--config", str(config), LC_ALL="C", LANG="C")
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(60):
        while b"ready: unix:" not in said:
            line = await process.stderr.readline()
            assert line, said
            said += line
    transport = httpx.AsyncHTTPTransport(uds=str(odd / "server.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/v1/models")).json()["data"][0]["id"] == "tiny"
    assert (odd / "server.sock").stat().st_mode & 0o077 == 0
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    assert not (odd / "server.sock").exists()


async def test_f06_two_hundred_requests_a_third_cut_off_leave_nothing_running_in_the_real_engine(
    smollm2_files: ModelFiles,
) -> None:
    async with serving(engine="openvino") as server, httpx.AsyncClient(timeout=120) as client:
        gate = asyncio.Semaphore(32)

        async def one(number: int) -> None:
            body = {"model": "smollm2", "prompt": f"Item {number}:", "max_tokens": 4 + number % 13, "stream": True}
            async with gate, client.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
                assert answer.status_code == 200
                async for _ in answer.aiter_raw():
                    if number % 3 == 0:
                        break

        await asyncio.gather(*(one(number) for number in range(200)))
        async with asyncio.timeout(10):
            while True:
                shown = (await client.get(f"{server.url}/metrics")).text
                if re.search(r"num_requests_running{[^}]*} 0\.0", shown):
                    break
        assert re.search(r"num_requests_waiting{[^}]*} 0\.0", shown)
        assert (await client.get(f"{server.url}/load")).json() == {"server_load": 0}
