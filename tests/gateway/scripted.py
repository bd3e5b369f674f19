"""Replicas that do exactly what a script says, good or bad, and a gateway before them that a test can look into."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx
import msgspec

from argosy.core.control_spec import GatewaySpec
from argosy.core.inference_service import GatewayPolicy
from argosy.core.load_report import GatewayReport, ReplicaReport
from argosy.core.routing import Endpoint, RevisionRoute, RouteTable, ServiceRoute
from argosy.gateway.app import Gateway
from argosy.gateway.run import upstream_settings
from argosy.gateway.upstream import ReplicaConnections
from argosy.observe.metrics import Metrics
from argosy.web.listener import Listener, bind

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
ANSWER = {"id": "x", "object": "chat.completion", "choices": [{"index": 0}], "usage": USAGE}
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


class Received:
    """One request as a replica got it."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.line, *lines = head.split(b"\r\n")
        self.headers = [tuple(line.split(b": ", 1)) for line in lines if line]
        self.body = body

    @property
    def path(self) -> bytes:
        return self.line.split(b" ")[1]

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


Behaviour = Callable[["ScriptedReplica", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ScriptedReplica:
    """A raw server. Each inference request takes the next behaviour of `script`, then `default`, over and over."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ""
        self.script: deque[Behaviour] = deque()
        self.default: Behaviour = answer()
        self.state: ReplicaReport | None = None
        self.state_behaviour: Behaviour | None = None
        self.requests: list[Received] = []
        self.num_connections = 0
        self.num_aborted = 0
        self.go = asyncio.Event()  # what gated behaviours wait for
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def endpoint(self, revision: str = "v1") -> Endpoint:
        return Endpoint(replica=self.name, address=self.address, revision=revision)

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """As kill -9 does it: the port is closed, every connection is reset."""
        assert self._server is not None
        self._server.close()
        for writer in [*self._writers]:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self._writers.add(writer)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                received = Received(head[:-4], b"")
                received.body = await reader.readexactly(int(received.header(b"content-length") or 0))
                if received.path.startswith(b"/replica/state"):
                    await (self.state_behaviour or _state)(self, reader, writer)
                    continue
                self.requests.append(received)
                await (self.script.popleft() if self.script else self.default)(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def _state(replica: ScriptedReplica, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if replica.state is None:
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
    else:
        _write_json(writer, 200, msgspec.json.encode(replica.state))


def _write_json(writer: asyncio.StreamWriter, status: int, body: bytes, *headers: bytes) -> None:
    lines = [b"HTTP/1.1 %d X" % status, b"content-type: application/json", b"content-length: %d" % len(body), *headers]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)


def answer(body: Any = ANSWER, status: int = 200, *headers: bytes) -> Behaviour:
    """A whole answer."""

    async def behave(replica: ScriptedReplica, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _write_json(writer, status, body if isinstance(body, bytes) else json.dumps(body).encode(), *headers)

    return behave


def gated(then: Behaviour) -> Behaviour:
    """Wait for `replica.go`, then behave."""

    async def behave(replica: ScriptedReplica, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _go_or_gone(replica, reader)
        await then(replica, reader, writer)

    return behave


def raw(sent: bytes, *, then_close: bool = True) -> Behaviour:
    """Exactly these bytes, then the end of the connection."""

    async def behave(replica: ScriptedReplica, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        if then_close:
            writer.close()

    return behave


def reset(sent: bytes = b"") -> Behaviour:
    """Some bytes, then a reset."""

    async def behave(replica: ScriptedReplica, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if sent:
            writer.write(sent)
            await writer.drain()
        writer.transport.abort()

    return behave


async def silence(replica: ScriptedReplica, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the request and never say a word: a black hole."""
    if not await reader.read(1):
        replica.num_aborted += 1


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = "data: [DONE]\n\n"
USAGE_COMMENT = ': usage {"prompt_tokens":5,"completion_tokens":3}\n\n'


def chunk(text: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text.encode()), text.encode())


def stream(*events: str, wait_before: int = -1, end: bytes = b"0\r\n\r\n") -> Behaviour:
    """Server-sent events, one per write; before event `wait_before` it waits for `replica.go`, or for the abort."""

    async def behave(replica: ScriptedReplica, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for number, event in enumerate(events):
            if number == wait_before:
                await _go_or_gone(replica, reader)
            writer.write(chunk(event))
            await writer.drain()
        writer.write(end)
        if not end:
            await writer.drain()
            writer.transport.abort()

    return behave


async def flood(replica: ScriptedReplica, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A stream as fast as the reader takes it, for ever."""
    writer.write(STREAM_HEAD)
    try:
        while True:
            writer.write(chunk("data: " + "x" * 4096 + "\n\n"))
            await writer.drain()
    except ConnectionError:
        replica.num_aborted += 1
        raise


async def _go_or_gone(replica: ScriptedReplica, reader: asyncio.StreamReader) -> None:
    """Raises: ConnectionResetError when the gateway closes first."""
    going, gone = asyncio.ensure_future(replica.go.wait()), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait((going, gone), return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            replica.num_aborted += 1
            raise ConnectionResetError
    finally:
        going.cancel()
        gone.cancel()
        await asyncio.wait((going, gone))


class TestLink:
    """A control plane under the test's hands."""

    __test__ = False

    def __init__(self) -> None:
        self.tables: asyncio.Queue[RouteTable | Exception] = asyncio.Queue()
        self.reports: list[GatewayReport] = []
        self.fails: Exception | None = None
        self._version = 0

    def publish(self, *services: ServiceRoute, failure: Exception | None = None) -> None:
        self._version += 1
        table = RouteTable(epoch="test", version=self._version, services=services)
        self.tables.put_nowait(failure or table)

    async def routes(self) -> AsyncGenerator[RouteTable]:
        while True:
            table = await self.tables.get()
            if isinstance(table, Exception):
                raise table
            yield table

    async def report(self, report: GatewayReport) -> None:
        if self.fails is not None:
            raise self.fails
        self.reports.append(report)


def route(*endpoints: Endpoint, service: str = "chat", failure: str = "", **policy: Any) -> ServiceRoute:
    """A service whose revisions share the traffic evenly."""
    names = sorted({endpoint.revision for endpoint in endpoints})
    revisions = tuple(
        RevisionRoute(
            revision=name,
            weight=100 // len(names),
            endpoints=tuple(endpoint for endpoint in endpoints if endpoint.revision == name),
        )
        for name in names
    )
    return ServiceRoute(
        service=service,
        names=(service,),
        revisions=revisions,
        policy=GatewayPolicy(**policy),
        failure=failure,
        created=1_700_000_000,
    )


class LiveGateway:
    """A running gateway and everything a test may look at."""

    def __init__(self, spec: GatewaySpec, draw: Callable[[], float] | None) -> None:
        self.metrics = Metrics()
        self.transport = ReplicaConnections(upstream_settings(spec))
        self.gateway = Gateway(spec, self.transport, self.metrics, **({} if draw is None else {"draw": draw}))
        self.listener = Listener(spec, bind(spec), self.metrics)
        self.link = TestLink()
        self.client = httpx.AsyncClient(base_url=self.listener.url, timeout=10)

    @property
    def port(self) -> int:
        return int(self.listener.url.rpartition(":")[2])

    def service(self, name: str = "chat") -> Any:
        return self.gateway.services.find(name)

    async def publish(self, *services: ServiceRoute) -> None:
        """Return once the gateway follows the table."""
        self.link.publish(*services)
        version = self.link._version
        await eventually(lambda: self.gateway.services.table.version == version)

    async def chat(self, **fields: Any) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json={**CHAT, **fields})

    async def send(self, sent: bytes, *, wait_for: bytes | None = None) -> bytes:
        """Bytes on a connection of their own, and what comes back until it closes, or until `wait_for` came."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        received = b""
        try:
            async with asyncio.timeout(5):
                while got := await reader.read(65536):
                    received += got
                    if wait_for is not None and wait_for in received:
                        break
        except ConnectionResetError:
            pass
        finally:
            writer.close()
        return received


async def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Return once the condition holds; fails if that takes longer."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.002)


def post(body: bytes, *headers: str, path: str = "/v1/chat/completions") -> bytes:
    """A request as bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
