"""Bytes no honest client sends (D-24, D-25), slow clients and sudden leaves (F-06), over raw sockets."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

pytestmark = pytest.mark.anyio

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def completion(max_tokens: int, *, stream: bool = False) -> bytes:
    body = b'{"model":"letters","prompt":"abc","max_tokens":%d,"stream":%s}' % (
        max_tokens,
        b"true" if stream else b"false",
    )
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n",
        HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1e3\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"X: a\r\n folded\x00\r\n\r\n",
        b"GET / HTTP/1.1\nHost: localhost\n\n\x00",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"NONSENSE\r\n\r\n",
    ],
)
async def test_d24_ambiguous_requests_are_refused_and_the_connection_closed(live, raw) -> None:
    async with live(limits={"header_seconds": 0.5, "body_seconds": 0.5}) as server:
        answer = await server.send(raw)
        assert answer.startswith(b"HTTP/1.1 4")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in answer.lower()
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/health")).status_code == 200


async def test_d24_two_hosts_are_refused(live) -> None:
    async with live() as server:
        raw = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        assert (await server.send(raw)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /" + b"a" * 70_000, b"431"),
    ],
)
async def test_d25_huge_heads_are_cut_off(live, raw, status) -> None:
    async with live() as server:
        assert (await server.send(raw)).startswith(b"HTTP/1.1 " + status)


async def test_d25_a_head_that_never_ends_is_given_up(live) -> None:
    async with live(limits={"header_seconds": 0.2}) as server:
        assert (await server.send(b"GET / HTTP/1.1\r\nHost: local")).startswith(b"HTTP/1.1 408 ")
        assert await server.send(b"") == b""


async def test_d25_dripping_headers_does_not_buy_time(live) -> None:
    async with live(limits={"header_seconds": 0.3}) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        began = time.monotonic()

        async def drip() -> None:
            for letter in b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaa":
                writer.write(bytes([letter]))
                await asyncio.sleep(0.02)

        task = asyncio.create_task(drip())
        async with asyncio.timeout(5):
            answer = await reader.read()
        task.cancel()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 1.0


async def test_d25_a_body_that_never_comes_is_given_up(live) -> None:
    async with live(limits={"body_seconds": 0.2}) as server:
        answer = await server.send(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        async with asyncio.timeout(1):
            await server.replica.wait_idle()


@pytest.mark.parametrize("late", [b"", b"{}"], ids=["idle", "after a late body"])
async def test_d25_an_idle_connection_is_closed(live, late) -> None:
    """Also when the last thing that came was a body whose answer had been given before."""
    async with live(limits={"keep_alive_seconds": 0.1}) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(late))
        async with asyncio.timeout(5):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(late)
            await reader.read()
        writer.close()


async def test_d25_bodies_beyond_the_limit_are_refused_before_they_are_read(live) -> None:
    async with live(limits={"max_body_bytes": 1000}) as server:
        answer = await server.send(HEAD + b"Content-Length: 100000000\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        chunk = b"3e8\r\n" + b"a" * 1000 + b"\r\n"
        chunked = await server.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3)
        assert chunked.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"model":"letters","prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000,
        b'{"model":"letters","prompt":"a","temperature":NaN}',
        b'{"model":"letters","prompt":"a","temperature":Infinity}',
        b'{"model":"letters","prompt":"\\ud800"}',
        b'{"model":"letters","prompt":"\xff\xfe"}',
        b"",
        b"null",
        b'{"model":"letters","prompt":"a"} trailing',
    ],
)
async def test_d25_json_that_is_none_is_a_400_and_the_server_lives(live, body) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]
        assert (await client.get("/health")).status_code == 200


async def test_d25_idle_connections_keep_nobody_out(live) -> None:
    async with live(limits={"max_connections": 3, "header_seconds": 5}) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        answer = await server.send(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert await held[0][0].read() == b""
        for _, writer in held:
            writer.close()


async def test_d25_connections_are_bounded_and_answers_are_never_cut_for_room(live) -> None:
    async with live(limits={"max_connections": 3}, steps_per_second=50) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        for reader, writer in held:
            writer.write(completion(400, stream=True))
            await reader.readuntil(b"data: ")
        assert (await server.send(b"")).startswith(b"HTTP/1.1 503 ")
        for reader, writer in held:
            await reader.readuntil(b"data: ")
            writer.close()


async def test_d25_a_line_too_many_behind_a_request_does_not_end_its_answer(live) -> None:
    async with live(limits={"header_seconds": 0.05}, steps_per_second=100) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(completion(40, stream=True) + b"\r\n")
        async with asyncio.timeout(5):
            assert b"[DONE]" in await reader.readuntil(b"data: [DONE]")
        writer.close()


async def test_d25_pipelined_requests_are_bounded(live) -> None:
    async with live(steps_per_second=50) as server:
        raw = completion(400, stream=True) + b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
        assert b"[DONE]" not in await server.send(raw)
        await server.idle()


async def test_d25_who_sends_too_much_still_reads_the_answer(live) -> None:
    async with live(limits={"max_body_bytes": 1000}) as server, httpx.AsyncClient(base_url=server.url) as client:
        for _ in range(3):
            answer = await client.post("/v1/completions", json={"model": "letters", "prompt": "a" * 20_000_000})
            assert answer.status_code == 413


async def test_d24_a_request_without_a_host_is_refused_except_in_http_1_0(live) -> None:
    async with live() as server:
        assert (await server.send(b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert (await server.send(b"GET /version HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_f06_sixty_four_clients_that_vanish_midway_free_the_engine(live) -> None:
    async with live(steps_per_second=200) as server:
        connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(64)]
        for _, writer in connections:
            writer.write(completion(500, stream=True))
        for reader, _ in connections:
            await reader.readuntil(b"data: ")
        assert server.engine.stats().num_requests_running == 64
        for _, writer in connections:
            writer.transport.abort()
        await server.idle()
        assert server.served.stats().num_requests_waiting == 0
        async with asyncio.timeout(1):
            await server.replica.wait_idle()


async def test_f06_a_client_that_leaves_before_its_whole_answer_frees_the_engine(live) -> None:
    async with live(steps_per_second=200) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(completion(500))
        async with asyncio.timeout(2):
            while not server.engine.stats().num_requests_running:  # noqa: ASYNC110  # the engine has no event for it
                await asyncio.sleep(0.005)
        writer.transport.abort()
        await server.idle()


async def test_f06_a_reader_that_stops_reading_is_cut_off_and_memory_stays_bounded(live) -> None:
    async with live(limits={"stall_seconds": 0.3}) as server:
        connection = server.listener
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        body = b'{"model":"letters","prompt":"abc","max_tokens":500,"stream":true,"n":16,"temperature":1}'
        request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
        writer.write(request * 40)
        reader._transport.pause_reading()
        stalled = server.metrics.counter("argosy_client_disconnects", "stalled")
        async with asyncio.timeout(20):
            while not stalled.value:  # noqa: ASYNC110  # a counter has no event
                await asyncio.sleep(0.05)
        await server.idle()
        writer.transport.abort()
        assert connection.url


async def test_f07_a_full_queue_answers_429_with_retry_after_at_once(live) -> None:
    async with live(steps_per_second=50) as server, httpx.AsyncClient(base_url=server.url) as client:
        admission = server.served._admission
        admission._queue.limits = type(admission._queue.limits)(max_running=1, max_waiting=0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(completion(400, stream=True))
        await reader.readuntil(b"data: ")
        times = []
        for _ in range(20):
            began = time.perf_counter()
            answer = await client.post("/v1/completions", json={"model": "letters", "prompt": "a"})
            times.append(time.perf_counter() - began)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["type"] == "OverloadedError"
        writer.close()
        assert sorted(times)[len(times) // 2] < 0.005
