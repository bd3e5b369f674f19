"""One HTTP question: whole answers, and every way not to give one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.backends.local.probe import Answer, ask, parsed

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server(answer: bytes, *, stays_open: bool = False) -> AsyncIterator[tuple[str, int]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if stays_open:
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()


async def test_status_and_body_are_read() -> None:
    async with server(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno") as address:
        assert await ask(address, "/readyz", 5.0) == Answer(status=503, body=b"no")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1\r\n\r\n", b"\0" * 100])
async def test_what_is_not_http_is_no_answer(answer: bytes) -> None:
    async with server(answer) as address:
        assert await ask(address, "/readyz", 5.0) is None


async def test_nobody_there_is_no_answer() -> None:
    async with server(b"") as address:
        pass
    assert await ask(address, "/readyz", 5.0) is None


async def test_silence_ends_with_the_time_allowed() -> None:
    async with asyncio.timeout(5), server(b"HTTP/1.1 200 OK\r\n", stays_open=True) as address:
        assert await ask(address, "/readyz", 0.05) is None


async def test_an_endless_body_is_cut_off() -> None:
    async with server(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2**20) as address:
        answer = await ask(address, "/readyz", 5.0)
    assert answer is not None
    assert len(answer.body) < 2**17


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_none(received: bytes) -> None:
    answer = parsed(received)
    assert answer is None or 0 <= answer.status <= 999
