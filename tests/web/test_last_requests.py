"""A listener that ends answers everyone who came before, and refuses the rest before they have sent a request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from argosy.core.web_spec import WebSpec
from argosy.observe.metrics import Metrics
from argosy.web.last_requests import has_newcomers, turn_newcomers_away
from argosy.web.listener import Listener, bind

pytestmark = pytest.mark.anyio
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
SILENCE_SECONDS = 0.05
DEADLINE_SECONDS = 5.0


class Site:
    """An application that answers when told, and the listener in front of it. seen: requests that began."""

    def __init__(self, listener: Listener, port: int) -> None:
        self.listener = listener
        self.port = port
        self.seen = asyncio.Semaphore(0)
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.release()
        await self.answers.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        return reader, writer


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    spec = WebSpec(host="127.0.0.1", port=0)
    with bind(spec) as bound:
        listener = Listener(spec, bound, Metrics())
        served = Site(listener, bound.getsockname()[1])
        await listener.start(served)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                yield served
        finally:
            await listener.stop(0.0)


def test_who_has_begun_to_connect_gets_in_and_newcomers_do_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert not has_newcomers(listening)
        with socket.create_connection(listening.getsockname()):
            if not turn_newcomers_away(listening):
                pytest.skip("this system has no socket filters")
            assert has_newcomers(listening)
            with pytest.raises(TimeoutError):
                socket.create_connection(listening.getsockname(), timeout=0.02)
            accepted, _ = listening.accept()
            with accepted:
                assert not has_newcomers(listening)


async def test_a_request_that_is_here_is_answered_as_the_last_one() -> None:
    async with site() as served:
        served.answers.clear()
        reader, writer = await served.connect(REQUEST)
        await served.seen.acquire()
        served.listener.begin_to_end()
        served.answers.set()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
        writer.close()


async def test_pipelined_requests_are_all_answered_and_only_the_last_closes() -> None:
    async with site() as served:
        served.answers.clear()
        reader, writer = await served.connect(REQUEST)
        await served.seen.acquire()
        served.listener.begin_to_end()
        writer.write(REQUEST * 2)
        await writer.drain()
        await until_read(served.listener)
        served.answers.set()
        answer = await reader.read()
        assert answer.count(b"HTTP/1.1 200") == 3
        assert answer.count(b"connection: close") == 1
        writer.close()


async def test_the_end_comes_when_every_connection_has_been_silent_or_answered() -> None:
    async with site() as served:
        idle, idle_writer = await served.connect(REQUEST)
        await idle.readuntil(b"ok")
        fresh, fresh_writer = await served.connect()
        half, half_writer = await served.connect(REQUEST[:10])
        served.listener.begin_to_end()
        ending = asyncio.create_task(served.listener.end(SILENCE_SECONDS))
        assert await idle.read() == b""
        assert await fresh.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await served.connect()
        assert not ending.done()
        half_writer.write(REQUEST[10:])
        assert b"connection: close" in await half.read()
        await ending
        for writer in (idle_writer, fresh_writer, half_writer):
            writer.close()


async def test_a_request_on_an_open_connection_is_answered_after_the_door_is_closed() -> None:
    async with site() as served:
        reader, writer = await served.connect(REQUEST)
        await reader.readuntil(b"ok")
        served.listener.begin_to_end()
        ending = asyncio.create_task(served.listener.end(DEADLINE_SECONDS))
        while True:
            try:
                _, another = await served.connect()
            except ConnectionRefusedError:
                break
            another.close()
        writer.write(REQUEST)
        assert b"connection: close" in await reader.read()
        await ending
        writer.close()


async def until_read(listener: Listener) -> None:
    """Until the listener's one connection holds back the requests behind the first."""
    (connection,) = listener._state.guarded()
    while len(connection.pipeline) < 2:  # noqa: ASYNC110 - a connection has no event for it
        await asyncio.sleep(0)
