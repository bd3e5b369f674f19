"""Connections to replicas: kept, bounded, and closed at once when an answer is given up."""

from __future__ import annotations

import asyncio

import pytest
from scripted import ScriptedReplica, answer, eventually, flood, raw, reset, silence, stream

from argosy.gateway.connection import BUFFER_BYTES
from argosy.gateway.transport import FailureKind, Question, ReplicaFailure
from argosy.gateway.upstream import ReplicaConnections, UpstreamSettings

pytestmark = pytest.mark.anyio

GET = Question(method=b"GET", path=b"/x")


async def body_of(connections: ReplicaConnections, replica: ScriptedReplica, question: Question = GET) -> bytes:
    got = await connections.ask(replica.address, question)
    try:
        body = b""
        while piece := await got.read():
            body += piece
        return body
    finally:
        got.close()


@pytest.fixture
async def connections():
    made = ReplicaConnections(UpstreamSettings(connect_seconds=0.2, headers=((b"authorization", b"Bearer k"),)))
    yield made
    await made.close()


async def test_a_connection_is_kept_for_the_next_question(connections, replicas) -> None:
    (a,) = await replicas("a")
    for _ in range(3):
        assert b"choices" in await body_of(connections, a)
    assert a.num_connections == 1
    assert a.requests[0].header(b"authorization") == b"Bearer k"


async def test_questions_at_once_have_connections_of_their_own(connections, replicas) -> None:
    (a,) = await replicas("a")
    await asyncio.gather(*(body_of(connections, a) for _ in range(5)))
    assert a.num_connections == 5
    await asyncio.gather(*(body_of(connections, a) for _ in range(5)))
    assert a.num_connections == 5


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (raw(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", then_close=True), None),
        (raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nuntil the end"), None),
        (raw(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 13\r\n\r\nuntil the end"), None),
        (raw(b""), FailureKind.RESET),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nuntil the end"), FailureKind.RESET),
        (reset(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"), FailureKind.RESET),
        (raw(b"HTTP/9.1 200 OK\r\n\r\n"), FailureKind.INVALID),
        (
            raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            FailureKind.INVALID,
        ),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"), FailureKind.INVALID),
        (raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"), FailureKind.INVALID),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000), FailureKind.INVALID),
        (stream("data: a\n\n", end=b"zz\r\n"), FailureKind.INVALID),
    ],
)
async def test_f15_what_a_replica_may_send(connections, replicas, behaviour, kind) -> None:
    (a,) = await replicas("a")
    a.default = behaviour
    if kind is None:
        assert await body_of(connections, a) == b"until the end"
    else:
        with pytest.raises(ReplicaFailure) as failed:
            await body_of(connections, a)
        assert failed.value.kind is kind
    a.default = answer()
    assert b"choices" in await body_of(connections, a)


async def test_nobody_listens(connections, replicas) -> None:
    (a,) = await replicas("a")
    await a.stop()
    with pytest.raises(ReplicaFailure, match="no connection to") as failed:
        await body_of(connections, a)
    assert failed.value.kind is FailureKind.CONNECT
    assert not failed.value.may_have_started


@pytest.mark.parametrize("address", ["", "x", "localhost:port", "[::1"])
async def test_an_address_that_is_none(connections, address) -> None:
    with pytest.raises(ReplicaFailure) as failed:
        await connections.ask(address, GET)
    assert failed.value.kind is FailureKind.CONNECT


async def test_a_stale_connection_is_replaced_without_a_word_once(connections, replicas) -> None:
    (a,) = await replicas("a")
    await body_of(connections, a)
    a.script.append(reset())
    assert b"choices" in await body_of(connections, a)
    assert (a.num_connections, len(a.requests)) == (2, 3)
    a.script.extend([reset(), reset()])
    with pytest.raises(ReplicaFailure):
        await body_of(connections, a)


async def test_a_connection_closed_while_idle_is_not_used(connections, replicas) -> None:
    (a,) = await replicas("a")
    a.script.append(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", then_close=True))
    await body_of(connections, a)
    await eventually(lambda: not any(connections._idle.values()))
    await body_of(connections, a)
    assert len(a.requests) == 2


async def test_f06_closing_an_answer_closes_the_connection_at_once(connections, replicas) -> None:
    (a,) = await replicas("a")
    a.default = stream("data: a\n\n", "data: never\n\n", wait_before=1)
    got = await connections.ask(a.address, GET)
    assert await got.read() == b"data: a\n\n"
    got.close()
    got.close()
    await eventually(lambda: a.num_aborted == 1)
    assert not connections._busy


async def test_f06_cancelling_a_question_closes_the_connection(connections, replicas) -> None:
    (a,) = await replicas("a")
    a.default = silence
    asking = asyncio.ensure_future(connections.ask(a.address, GET))
    await eventually(lambda: a.requests)
    asking.cancel()
    await eventually(lambda: a.num_aborted == 1)


async def test_f06_what_nobody_reads_is_bounded_and_the_replica_waits(connections, replicas) -> None:
    (a,) = await replicas("a")
    a.default = flood
    got = await connections.ask(a.address, GET)
    (connection,) = connections._busy
    await eventually(lambda: connection._is_paused)
    held = len(await got.read())
    assert BUFFER_BYTES < held < 4 * BUFFER_BYTES
    assert len(await got.read()) > 0  # it reads on
    got.close()
    await eventually(lambda: a.num_aborted == 1)


async def test_f08_silence_has_an_end(connections, replicas) -> None:
    (a,) = await replicas("a")
    a.default = silence
    with pytest.raises(ReplicaFailure, match=r"sent nothing for 0\.05 s") as failed:
        await connections.ask(a.address, Question(path=b"/x", silence_seconds=0.05))
    assert failed.value.kind is FailureKind.SILENT
    a.default = stream("data: a\n\n", "data: never\n\n", wait_before=1)
    got = await connections.ask(a.address, Question(path=b"/x", silence_seconds=0.05))
    assert await got.read() == b"data: a\n\n"
    with pytest.raises(ReplicaFailure, match="sent nothing"):
        await got.read()


async def test_f08_giving_a_replica_up_ends_what_has_no_byte_yet_and_nothing_else(connections, replicas) -> None:
    (a, b) = await replicas("a", "b")
    a.default = b.default = silence
    asked = [asyncio.ensure_future(connections.ask(each.address, GET)) for each in (a, b)]
    await eventually(lambda: a.requests and b.requests)
    a.script.append(stream("data: a\n\n", "data: b\n\n", wait_before=1))
    streaming = await connections.ask(a.address, GET)
    assert await streaming.read() == b"data: a\n\n"
    connections.give_up(a.address, "it does not answer")
    with pytest.raises(ReplicaFailure, match="it does not answer"):
        await asked[0]
    assert not asked[1].done()
    a.go.set()
    assert await streaming.read() == b"data: b\n\n"
    asked[1].cancel()


async def test_idle_connections_elsewhere_are_closed(connections, replicas) -> None:
    a, b = await replicas("a", "b")
    await body_of(connections, a)
    await body_of(connections, b)
    connections.keep_only(frozenset({b.address}))
    await body_of(connections, b)
    await body_of(connections, a)
    assert (a.num_connections, b.num_connections) == (2, 1)


async def test_f03_a_replica_that_is_gone_after_it_took_our_bytes_may_have_died_of_them(connections, replicas) -> None:
    (a,) = await replicas("a")
    await body_of(connections, a)

    async def die(replica, reader, writer) -> None:
        await replica.stop()

    a.script.append(die)
    with pytest.raises(ReplicaFailure) as failed:
        await body_of(connections, a)
    assert failed.value.may_have_started


async def test_f15_a_replica_that_changes_the_protocol_is_no_http_server(connections, replicas) -> None:
    (a,) = await replicas("a")
    a.default = raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello")
    with pytest.raises(ReplicaFailure) as failed:
        await body_of(connections, a)
    assert failed.value.kind is FailureKind.INVALID
