"""A server with TorchServe's three APIs as its users run it: processes, sockets, signals. All else is tested nearer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Eventually = Callable[..., Awaitable[None]]
START_SECONDS = 30
HANDLER = """
import os, time

def handle(data, context):
    if data is None:
        return None
    time.sleep(max(float(row["body"].get("seconds", 0)) for row in data))
    return [{"text": row["body"]["text"], "pid": os.getpid()} for row in data]
"""


def write_archive(path: Path, name: str, version: str = "1.0", config: str = "") -> None:
    model = {"modelName": name, "modelVersion": version, "handler": "handler.py"}
    if config:
        model["configFile"] = "model-config.yaml"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
        archive.writestr("handler.py", HANDLER)
        if config:
            archive.writestr("model-config.yaml", config)


def write_t5_archive(path: Path) -> None:
    """The small T5 of this repository, behind the preset that is the tutorial's handler."""
    model = {"modelName": "t5-small", "modelVersion": "1.0", "handler": "translation"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
        for file in (Path(__file__).parents[2] / "examples" / "t5" / "model").iterdir():
            archive.write(file, file.name)


class Server:
    """A running process. urls: by API."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log
        found = re.findall(r"^([a-z, ]+): (http://\S+)$", log.read_text(), re.MULTILINE)
        self.urls = {api: url for apis, url in found for api in apis.split(", ")}

    async def exit_code(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "model-store"
    folder.mkdir()
    write_archive(folder / "echo.mar", "echo")
    return folder


@asynccontextmanager
async def serving(store: Path, *flags: str) -> AsyncIterator[Server]:
    """`argosy serve FLAGS` beside the store, until ready."""
    log = store.parent / "server.log"
    command = [sys.executable, "-m", "argosy.cli.main", "serve", "--store", str(store.parent / "cache"), *flags]
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, stderr=stderr, cwd=store.parent
        )
    try:
        async with asyncio.timeout(START_SECONDS):
            while "Model server started." not in log.read_text():  # another process has no event
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        yield Server(process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def write_config(store: Path, **more: Any) -> Path:
    """The tutorial's config.properties, with free ports of this machine."""
    keys = {
        **{f"{api}_address": "http://127.0.0.1:0" for api in ("inference", "management", "metrics")},
        "metrics_mode": "prometheus",
        "number_of_netty_threads": 32,
        "job_queue_size": 1000,
        "install_py_dep_per_model": "true",
        "model_store": store,
        "load_models": "all",
        "default_workers_per_model": 1,
        **more,
    }
    path = store.parent / "config.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in keys.items()))
    return path


async def test_the_tutorials_calls_and_one_bad_archive(store: Path) -> None:
    (store / "broken.mar").write_bytes(b"PK\x03\x04 and no more")
    write_t5_archive(store / "t5-small.mar")
    config = write_config(store)
    async with (
        serving(store, "--ts-config", str(config), "--ncs", "--foreground") as server,
        httpx.AsyncClient() as web,
    ):
        body = {"text": "twenty-three", "from": "en", "to": "fr"}
        answer = await web.post(f"{server.urls['inference']}/predictions/echo/1.0", json=body)
        assert answer.json()["text"] == body["text"], answer.text
        answer = await web.post(f"{server.urls['inference']}/predictions/t5-small/1.0", json=body)
        assert answer.json() == {"text": "vingt-trois"}
        prompt = {"model": "t5-small", "prompt": "translate English to German: twenty-three"}
        answer = await web.post(f"{server.urls['inference']}/v1/completions", json=prompt)
        assert answer.json()["choices"][0]["text"] == "dreiundzwanzig"
        assert "t5-small" in (await web.get(f"{server.urls['inference']}/translate/models")).text
        assert (await web.get(f"{server.urls['inference']}/ping")).json() == {"status": "Healthy"}
        assert (await web.get(f"{server.urls['management']}/models/echo")).json()[0]["workers"][0]["status"] == "READY"
        metrics = (await web.get(f"{server.urls['metrics']}/metrics")).text
        counted = r'^ts_inference_requests_total{.*model_name="echo",model_version="1.0".*} 1.0$'
        assert re.search(counted, metrics, re.MULTILINE)
        assert "not loaded (broken.mar)" in server.log.read_text()
        assert "number_of_netty_threads is ignored" in server.log.read_text()
        assert not (store.parent / "logs").exists()


class Hammer:
    """Clients that ask again and again on connections they keep while they may. answers: status and `Connection`.

    lost: requests that were sent and not answered.
    """

    def __init__(self, url: str, path: str = "/predictions/echo") -> None:
        self.answers: list[tuple[int, str]] = []
        self.lost: list[str] = []
        self._address = httpx.URL(url)
        body = b'{"text": "x", "seconds": 0.002}'
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        self._request = f"{head}\r\n\r\n".encode() + body

    async def run(self) -> None:
        """Until the server refuses connections."""
        while True:
            try:
                reader, writer = await asyncio.open_connection(self._address.host, self._address.port)
            except ConnectionError:
                return
            try:
                while await self._ask(reader, writer):
                    pass
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                self.lost.append(repr(error))
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection may be used again."""
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"^content-length: (\d+)", head, re.MULTILINE)
        await reader.readexactly(int(length[1]) if length else 0)
        connection = re.search(r"^connection: (\S+)", head, re.MULTILINE)
        self.answers.append((int(head.split()[1]), connection[1] if connection else ""))
        return connection is None


@pytest.mark.parametrize("round_", range(3))
async def test_f01_term_under_load_fails_no_request(store: Path, eventually: Eventually, round_: int) -> None:
    """Nobody who sent a request goes without its answer: not on open connections, not on new ones, not at the end."""
    config = write_config(store, default_workers_per_model=2)
    async with serving(store, "--torchserve", str(config), "--ncs", "--lame-duck", "0.3") as server:
        hammer = Hammer(server.urls["inference"])
        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            for _ in range(32):
                group.create_task(hammer.run())

            async def is_busy() -> bool:
                return len(hammer.answers) > 200 + 50 * round_

            await eventually(is_busy)
            server.process.send_signal(signal.SIGTERM)
        assert await server.exit_code() == 0
        assert hammer.lost == []
        assert {status for status, _ in hammer.answers} == {200}
        assert sum(connection == "close" for _, connection in hammer.answers) >= 32


async def test_scaling_down_and_unregistering_under_load_lose_nothing(store: Path, eventually: Eventually) -> None:
    write_archive(store / "late.mar", "echo", version="2.0")
    config = write_config(store, default_workers_per_model=2, load_models="echo.mar")
    async with (
        serving(store, "--torchserve", str(config), "--ncs") as server,
        httpx.AsyncClient(base_url=server.urls["management"], timeout=20) as web,
    ):
        hammer = Hammer(server.urls["inference"])
        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            for _ in range(16):
                group.create_task(hammer.run())
            for method, path in (
                ("PUT", "/models/echo/1.0?min_worker=1&synchronous=true"),
                ("POST", "/models?url=late.mar&initial_workers=2&synchronous=true"),
                ("PUT", "/models/echo/2.0/set-default"),
                ("DELETE", "/models/echo/1.0"),
                ("PUT", "/models/echo/2.0?min_worker=1&synchronous=true"),
            ):
                seen = len(hammer.answers)
                answer = await web.request(method, path)
                assert answer.status_code == 200, (path, answer.text)

                async def is_served_on(seen: int = seen) -> bool:
                    return len(hammer.answers) > seen + 50

                await eventually(is_served_on)
            server.process.send_signal(signal.SIGTERM)
        assert await server.exit_code() == 0
        assert hammer.lost == []
        assert {status for status, _ in hammer.answers} == {200}


async def test_a_second_signal_answers_who_still_waits(store: Path, eventually: Eventually) -> None:
    config = write_config(store)
    async with serving(store, "--torchserve", str(config), "--ncs") as server:
        async with httpx.AsyncClient(base_url=server.urls["inference"], timeout=30) as web:
            slow = {"text": "x", "seconds": 60}
            asked = [asyncio.create_task(web.post("/predictions/echo", json=slow)) for _ in range(2)]

            async def is_busy() -> bool:
                shown = await web.get(f"{server.urls['management']}/models/echo")
                return shown.json()[0]["jobQueueStatus"]["pendingRequests"] >= 1

            await eventually(is_busy)
            server.process.send_signal(signal.SIGTERM)

            async def is_draining() -> bool:
                return (await web.get("/readyz")).status_code == 503

            await eventually(is_draining)
            server.process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*asked)
            assert {answer.json()["code"] for answer in answers} <= {500, 503}, [answer.text for answer in answers]
        assert await server.exit_code() == 1


async def test_f03_a_killed_worker_costs_its_own_request_and_nothing_else(store: Path, eventually: Eventually) -> None:
    config = write_config(store)
    async with (
        serving(store, "--torchserve", str(config), "--ncs") as server,
        httpx.AsyncClient(base_url=server.urls["inference"], timeout=30) as web,
    ):
        first = (await web.post("/predictions/echo", json={"text": "x"})).json()["pid"]
        slow = asyncio.create_task(web.post("/predictions/echo", json={"text": "slow", "seconds": 60}))

        async def is_busy() -> bool:
            shown = await web.get(f"{server.urls['management']}/models/echo")
            return bool(shown.json()[0]["argosy"]["runningRequests"])

        await eventually(is_busy)
        os.kill(first, signal.SIGKILL)
        answer = await slow
        assert (answer.status_code, answer.json()["reason"]) == (500, "worker_died")
        async with asyncio.timeout(10):
            again = await web.post("/predictions/echo", json={"text": "y"})
            while again.status_code == 503:
                await asyncio.sleep(0.05)
                again = await web.post("/predictions/echo", json={"text": "y"})
        assert again.json()["text"] == "y"
        assert again.json()["pid"] != first


async def test_the_next_start_goes_on_where_the_last_one_ended(store: Path) -> None:
    """One port for all three APIs; models registered, scaled and chosen over HTTP are there again."""
    write_archive(store / "late.mar", "echo", version="2.0", config="batchSize: 2\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    one = f"http://127.0.0.1:{port}"
    config = write_config(store, load_models="echo.mar", **{
        f"{api}_address": one for api in ("inference", "management", "metrics")
    })  # fmt: skip
    async with serving(store, "--torchserve", str(config)) as server, httpx.AsyncClient(base_url=one) as web:
        assert set(server.urls.values()) == {one}
        assert (await web.post("/models?url=late.mar&initial_workers=1")).status_code == 200
        assert (await web.put("/models/echo/2.0?min_worker=2&synchronous=true")).status_code == 200
        assert (await web.put("/models/echo/2.0/set-default")).status_code == 200
        assert (await web.get("/metrics")).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert await server.exit_code() == 0
    config.unlink()
    async with serving(store, "--start") as server, httpx.AsyncClient(base_url=one) as web:
        shown = {each["modelVersion"]: each for each in (await web.get("/models/echo/all")).json()}
        assert {version: each["minWorkers"] for version, each in shown.items()} == {"1.0": 1, "2.0": 2}
        assert shown["2.0"]["batchSize"] == 2
        assert (await web.get("/models/echo")).json()[0]["modelVersion"] == "2.0"
