"""A real server process on loopback, and a real browser."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from argosy.core.model import ModelFiles
from argosy.evals.probe import process_tree, process_usage

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = 60


@contextmanager
def running_server(*flags: str, model: str = "smollm2") -> Iterator[str]:
    """`argosy serve`; its address. The default model has the echo engine, slowed to 200 tokens a second.

    It is ended by SIGTERM.
    """
    command = [sys.executable, "-m", "argosy.cli.main", "serve", model, "--port", "0"]
    echo = ["--engine", "echo", "--engine-args", "steps_per_second=200"] if model == "smollm2" else []
    with subprocess.Popen([*command, *echo, *flags], stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        assert process.stderr is not None
        try:
            yield next(found for line in process.stderr if (found := address_in(line)))
        finally:
            watchdog.cancel()
            process.terminate()
            process.communicate(timeout=30)
    assert process.returncode == 0


def address_in(line: str) -> str | None:
    """The address in the line that says the server is ready."""
    found = re.match(r"ready: (http://[^/]+)/v1", line)
    return found.group(1) if found else None


@pytest.fixture(scope="module")
def browser(smollm2_files: ModelFiles) -> Iterator[Browser]:
    """Chromium, without the network services a browser talks to by itself.

    Playwright keeps an event loop running in this thread for as long as it lives: nothing else that needs one (such
    as `smollm2_files`) may begin meanwhile, so it lives for one module and comes last.
    """
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page_at(browser: Browser) -> Callable[..., AbstractContextManager[Page]]:
    """A page on a phone, in a context of its own; a script error or a breach of the content policy fails the test."""

    @contextmanager
    def opened(url: str, **context_options: Any) -> Iterator[Page]:
        size = {"width": 360, "height": 740}
        context = browser.new_context(
            **{"locale": "en-US", "color_scheme": "light", "viewport": size, **context_options}
        )
        page = context.new_page()
        problems: list[str] = []

        def note(message: ConsoleMessage) -> None:
            # The browser logs every failed request as an error; the page tells those itself, and tests look at that.
            if message.type == "error" and "Failed to load resource" not in message.text:
                problems.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        yield page
        context.close()
        assert problems == []

    return opened


@pytest.fixture(scope="module")
def serving() -> Callable[..., AbstractContextManager[str]]:
    """`running_server`, for a test that chooses the flags."""
    return running_server


@pytest.fixture(scope="module")
def echo_server(browser: Browser) -> Iterator[str]:
    """The address of a server that answers with its prompt."""
    with running_server("--served-model-name", "echo") as address:
        yield address


class Replica:
    """A server process whose port, memory and children a test may look at."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def engine_pid(self) -> int:
        """The process the model runs in: the server's first child."""
        return next(pid for pid in process_tree(self.process.pid) if pid != self.process.pid)

    def rss_bytes(self) -> int:
        """Of the server and its children."""
        return process_usage(self.process.pid).rss_bytes

    def own_rss_bytes(self) -> int:
        """Of the server alone, without the engine."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def metric(self, name: str) -> float:
        """The value of a metric, over all its labels."""
        async with httpx.AsyncClient(base_url=self.url) as client:
            shown = (await client.get("/metrics")).text
        return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", shown, re.MULTILINE))

    async def is_idle(self) -> bool:
        """Whether nothing runs, waits or holds cache."""
        gauges = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        return not any([await self.metric(name) for name in gauges])

    async def exit_code(self) -> int:
        """How it ended."""
        async with asyncio.timeout(30):
            return await self.process.wait()


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Return as soon as the condition holds. Raises: TimeoutError if it never does."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # another process has no event to wait for
            await asyncio.sleep(0.02)


@pytest.fixture(scope="session", name="eventually")
def eventually_fixture() -> Callable[..., Awaitable[None]]:
    """`await eventually(condition, seconds)`."""
    return eventually


@pytest.fixture
def replica(smollm2_files: ModelFiles, tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Replica]]:
    """`async with replica("--engine", "echo", …) as server:`; flags and environment of `argosy serve smollm2`."""

    @asynccontextmanager
    async def start(*flags: str, model: str = "smollm2", **environment: str) -> AsyncIterator[Replica]:
        log = tmp_path / "server.log"
        command = [sys.executable, "-m", "argosy.cli.main", "serve", model, "--port", "0", *flags]
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.DEVNULL, stderr=stderr, env={**os.environ, **environment}
            )

        async def is_ready() -> bool:
            assert process.returncode is None, log.read_text()
            return "\nready: " in log.read_text()

        try:
            await eventually(is_ready, START_SECONDS)
            address = next(found for line in log.read_text().splitlines() if (found := address_in(line)))
            yield Replica(process, address, log)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return start
