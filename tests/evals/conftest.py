"""A virtual clock and a loopback server, both scripted.

On the virtual loop time is a number: sleeping jumps ahead, so a run of minutes takes milliseconds and its times are
exact. The loopback server answers each request with bytes that the test wrote, cut as the test says.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest


class _JumpingSelector(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "every task waits for something that no task will do"
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = _JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


@pytest.fixture
def run_virtually() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine on a loop of its own whose `time()` is virtual."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(main)

    return run


Script = Callable[[bytes, bytes], list[bytes]]


class ScriptedServer:
    """Answers (head, body) of each request with `script`'s pieces; an empty piece closes the connection."""

    def __init__(self) -> None:
        self.script: Script = lambda head, body: []
        self.connections = 0
        self.was_asked = asyncio.Event()
        self.requests: list[tuple[bytes, bytes]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.requests.append((head, body))
                self.was_asked.set()
                for piece in self.script(head, body):
                    if not piece:
                        return
                    writer.write(piece)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncGenerator[ScriptedServer]:
    scripted = ScriptedServer()
    listening = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield scripted
    finally:
        listening.close()
