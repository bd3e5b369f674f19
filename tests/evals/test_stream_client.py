"""The client against a loopback server whose bytes are scripted, cut at every byte."""

from __future__ import annotations

import asyncio
import time

import pytest

from argosy.core.errors import InvalidRequest
from argosy.evals.answer import Answer
from argosy.evals.records import RequestRecord
from argosy.evals.stream_client import StreamClient, Target, _Connection, parse_target

pytestmark = pytest.mark.anyio

EVENTS = [
    b'data: {"choices":[{"delta":{"content":"a\xc3\xa4"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"b"},"finish_reason":"length"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = (
    HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in EVENTS)
    + b"0\r\n\r\n"
)
BY_LENGTH = HEAD + b"Content-Length: %d\r\n\r\n" % len(b"".join(EVENTS)) + b"".join(EVENTS)
UNTIL_CLOSE = HEAD + b"Connection: close\r\n\r\n" + b"".join(EVENTS)


def new_record() -> RequestRecord:
    return RequestRecord(index=0, intended_at=0.0, chunk_times=[])


def client_of(url: str, *, timeout_seconds: float = 5.0, api_key: str | None = None) -> StreamClient:
    return StreamClient(parse_target(url), time.perf_counter, api_key=api_key, timeout_seconds=timeout_seconds)


class NullTransport(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool:
        return False


async def replayed(response: bytes, cut: int, *, closes: bool) -> RequestRecord:
    """The record of a response that comes in two pieces, at the clock's 1 and 2."""
    ticks = iter([1.0, 2.0, 3.0])
    connection = _Connection(lambda: next(ticks))
    connection.connection_made(NullTransport())
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answer = Answer(new_record())
    connection.send(b"GET", answer, finished)
    for piece in (response[:cut], response[cut:]):
        if piece:
            connection.data_received(piece)
    if closes:
        connection.connection_lost(None)
    await finished
    return answer.record


@pytest.mark.parametrize(("response", "closes"), [(CHUNKED, False), (BY_LENGTH, False), (UNTIL_CLOSE, True)])
async def test_a_response_means_the_same_wherever_it_is_cut(response: bytes, closes: bool) -> None:
    for cut in range(len(response) + 1):
        record = await replayed(response, cut, closes=closes)
        assert record.error is None, (cut, record)
        assert (record.prompt_tokens, record.completion_tokens, record.finish_reason) == (5, 2, "length")
        assert len(record.chunk_times) == 2
        assert record.chunk_times == sorted(record.chunk_times)


async def test_each_token_is_timed_when_its_bytes_came() -> None:
    cut = CHUNKED.index(b'"b"')
    record = await replayed(CHUNKED, cut, closes=False)
    assert record.chunk_times == [1.0, 2.0]


@pytest.mark.parametrize("cut", [len(HEAD) + 5, len(CHUNKED) - 3])
async def test_a_response_that_breaks_off_is_truncated(cut: int) -> None:
    record = await replayed(CHUNKED[:cut], 10, closes=True)
    assert record.error == "truncated"


@pytest.mark.parametrize(
    "response",
    [b"SSH-2.0-OpenSSH\r\n\r\n", HEAD + b"\r\ndata: {nonsense\n\n", CHUNKED.replace(b"\r\n0\r\n", b"\r\nzz\r\n")],
)
async def test_a_response_that_makes_no_sense_is_malformed(response: bytes) -> None:
    record = await replayed(response, 0, closes=False)
    assert record.error == "malformed"


async def test_connections_are_kept_and_shared_out(server) -> None:
    server.script = lambda head, body: [CHUNKED]
    client = client_of(server.url)
    for _ in range(3):
        assert (await client.ask("/chat/completions", b"{}", new_record())).record.error is None
    assert server.connections == 1
    await asyncio.gather(*(client.ask("/chat/completions", b"{}", new_record()) for _ in range(3)))
    assert server.connections == 3
    client.close()


async def test_a_connection_that_the_server_closes_is_not_used_again(server) -> None:
    server.script = lambda head, body: [UNTIL_CLOSE, b""]
    client = client_of(server.url)
    for _ in range(2):
        assert (await client.ask("/completions", b"{}", new_record())).record.error is None
    assert server.connections == 2
    client.close()


async def test_a_server_that_closes_kept_connections_unannounced_is_asked_again(server) -> None:
    server.script = lambda head, body: [CHUNKED, b""]  # nothing says that the connection will close
    client = client_of(server.url)
    for _ in range(3):
        assert (await client.ask("/completions", b"{}", new_record())).record.error is None
    assert len(server.requests) == 3
    client.close()


async def test_a_new_connection_that_closes_without_a_word_is_not_asked_again(server) -> None:
    server.script = lambda head, body: [b""]
    answer = await client_of(server.url).ask("/completions", b"{}", new_record())
    assert (answer.record.error, len(server.requests)) == ("truncated", 1)


async def test_the_request_is_as_http_wants_it(server) -> None:
    server.script = lambda head, body: [CHUNKED]
    client = client_of(server.url + "/v1/", api_key="s3cret")
    await client.ask("/chat/completions", b'{"model":"m"}', new_record())
    head, body = server.requests[0]
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer s3cret\r\n" in head
    assert body == b'{"model":"m"}'
    client.close()


async def test_nobody_listening_and_no_answer_in_time_are_told(server) -> None:
    gone = await client_of("http://127.0.0.1:1").ask("/completions", b"{}", new_record())
    assert gone.record.error == "connect"
    server.script = lambda head, body: []
    slow = await client_of(server.url, timeout_seconds=0.05).ask("/completions", b"{}", new_record())
    assert slow.record.error == "timeout"


async def test_a_cut_request_is_marked_and_its_connection_closed(server) -> None:
    server.script = lambda head, body: [CHUNKED[:120]]
    client = client_of(server.url)
    record = new_record()
    task = asyncio.ensure_future(client.ask("/completions", b"{}", record))
    await server.was_asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert record.error == "interrupted"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://127.0.0.1:8000", Target(host="127.0.0.1", port=8000, is_tls=False, base_path="/v1")),
        ("localhost:8000/v1/", Target(host="localhost", port=8000, is_tls=False, base_path="/v1")),
        ("https://example.com/api", Target(host="example.com", port=443, is_tls=True, base_path="/api/v1")),
        ("http://[::1]:80", Target(host="::1", port=80, is_tls=False, base_path="/v1")),
    ],
)
async def test_addresses(url: str, target: Target) -> None:
    assert parse_target(url) == target


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://x:port"])
async def test_nonsense_addresses_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="not the address"):
        parse_target(url)


async def test_a_key_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="API key"):
        client_of("http://x", api_key="a\r\nX: y")
