"""A real server process on loopback, and a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

from argosy.core.model import ModelFiles

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
def running_server(*flags: str) -> Iterator[str]:
    """`argosy serve` with the echo engine, slowed to 200 tokens a second; its address. It is ended by SIGTERM."""
    command = [sys.executable, "-m", "argosy.cli.main", "serve", "smollm2", "--port", "0", "--engine", "echo"]
    pace = ["--engine-args", "steps_per_second=200"]
    with subprocess.Popen([*command, *pace, *flags], stderr=subprocess.PIPE, text=True) as process:
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


@pytest.fixture(scope="module")
def serving() -> Callable[..., AbstractContextManager[str]]:
    """`running_server`, for a test that chooses the flags."""
    return running_server


@pytest.fixture(scope="module")
def echo_server(browser: Browser) -> Iterator[str]:
    """The address of a server that answers with its prompt."""
    with running_server("--served-model-name", "echo") as address:
        yield address
