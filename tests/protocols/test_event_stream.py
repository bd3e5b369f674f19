"""The laws of a response: bytes in order, errors before and after the first byte, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Self

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import Message, Scope

from argosy.core.errors import EngineDead, EngineError
from argosy.core.generation import GenerateOutput, GenerateRequest
from argosy.engines.echo import EchoEngine
from argosy.protocols.openai.answer_shape import AnswerShape
from argosy.protocols.openai.chat_answer import ChatChunks
from argosy.protocols.openai.event_stream import EventStream
from argosy.serving.delta import Delta, Usage
from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import ServedModel
from argosy.serving.timings import Timings

pytestmark = pytest.mark.anyio

SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/v1/chat/completions",
    "raw_path": b"/v1/chat/completions",
    "query_string": b"",
    "headers": [(b"content-type", b"application/json")],
    "scheme": "http",
    "server": ("argosy", 80),
    "client": ("127.0.0.1", 1),
    "http_version": "1.1",
}


class FailingEngine(EchoEngine):
    """Echoes so many tokens, then fails."""

    def __init__(self, tokens: int, error: Exception) -> None:
        super().__init__()
        self._tokens = tokens
        self._error = error

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateOutput]:
        sent = 0
        async for output in super().generate(request):
            if sent == self._tokens:
                raise self._error
            sent += 1
            yield output


class Client:
    """One request straight at the ASGI app; `sent` is what came back. Blocks in `send` once told to."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = json.dumps(body).encode()
        self._has_read = False
        self.gone = asyncio.Event()
        self.sent: list[Message] = []
        self.block_after: int | None = None
        self.is_blocked = asyncio.Event()

    async def receive(self) -> Message:
        if not self._has_read:
            self._has_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if self.block_after is not None and len(self.sent) > self.block_after:
            self.is_blocked.set()
            await asyncio.Event().wait()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def endless(stream: bool) -> dict[str, Any]:
    return {
        "model": "echo",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": stream,
        "ignore_eos": True,
        "max_tokens": 500,
    }


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    for _ in range(100_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never held")


@pytest.mark.parametrize("stream", [True, False])
async def test_f06_a_client_that_leaves_frees_its_place(
    registry: ModelRegistry, make_app: Callable[[ModelRegistry], Starlette], stream: bool
) -> None:
    app, client, model = make_app(registry), Client(endless(stream)), registry.get("echo")
    async with asyncio.TaskGroup() as group:
        group.create_task(app(SCOPE, client.receive, client.send))
        await until(lambda: model.stats().num_requests_running > 0)
        client.gone.set()
    assert model.stats().num_requests_running == 0
    assert b"[DONE]" not in client.body


async def test_f06_a_client_cut_off_while_blocked_in_send_frees_its_place(
    registry: ModelRegistry, make_app: Callable[[ModelRegistry], Starlette]
) -> None:
    app, client, model = make_app(registry), Client(endless(stream=True)), registry.get("echo")
    client.block_after = 5
    async with asyncio.TaskGroup() as group:
        group.create_task(app(SCOPE, client.receive, client.send))
        await client.is_blocked.wait()
        assert model.stats().num_requests_running == 1
        client.gone.set()
    assert model.stats().num_requests_running == 0


async def test_f06_a_socket_that_breaks_on_write_frees_its_place(
    registry: ModelRegistry, make_app: Callable[[ModelRegistry], Starlette]
) -> None:
    client, model = Client(endless(stream=True)), registry.get("echo")

    async def broken_send(message: Message) -> None:
        await client.send(message)
        if len(client.sent) == 4:
            raise OSError("broken pipe")

    await make_app(registry)(SCOPE, client.receive, broken_send)
    assert len(client.sent) == 4
    assert model.stats().num_requests_running == 0


async def test_f06_sixty_four_clients_cut_off_leave_nothing_running(
    registry: ModelRegistry, make_app: Callable[[ModelRegistry], Starlette]
) -> None:
    app, model = make_app(registry), registry.get("echo")
    clients = [Client(endless(stream=True)) for _ in range(64)]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(app(SCOPE, client.receive, client.send))
        await until(lambda: model.stats().num_requests_waiting > 0)
        for client in clients:
            client.gone.set()
    stats = model.stats()
    assert (stats.num_requests_running, stats.num_requests_waiting) == (0, 0)


async def test_cancelling_the_server_task_aborts_the_generation(
    registry: ModelRegistry, make_app: Callable[[ModelRegistry], Starlette]
) -> None:
    app, client, model = make_app(registry), Client(endless(stream=True)), registry.get("echo")
    client.block_after = 3
    task = asyncio.ensure_future(app(SCOPE, client.receive, client.send))
    await client.is_blocked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.stats().num_requests_running == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_f07_a_full_queue_is_a_429_before_the_first_byte(
    tight_model: ServedModel, make_app: Callable[[ModelRegistry], Starlette], stream: bool
) -> None:
    registry = ModelRegistry()
    registry.add(tight_model)
    app, first = make_app(registry), Client(endless(stream=True))
    first.block_after = 2
    async with asyncio.TaskGroup() as group:
        group.create_task(app(SCOPE, first.receive, first.send))
        await first.is_blocked.wait()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://argosy") as client:
            response = await client.post("/v1/chat/completions", json=endless(stream))
        first.gone.set()
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["reason"] == "overloaded"
    assert tight_model.stats().num_requests_running == 0


async def events_of(app: Starlette, body: dict[str, Any]) -> list[str]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://argosy") as client:
        response = await client.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.text.endswith("\n\n")
    return response.text.removesuffix("\n\n").split("\n\n")


def failing_app(
    served: Callable[..., ServedModel], make_app: Callable[[ModelRegistry], Starlette], tokens: int, error: Exception
) -> Starlette:
    registry = ModelRegistry()
    registry.add(served("echo", FailingEngine(tokens, error)))
    return make_app(registry)


async def test_an_error_after_the_first_byte_is_the_last_event_and_nothing_is_done(
    make_model: Callable[..., ServedModel], make_app: Callable[[ModelRegistry], Starlette]
) -> None:
    app = failing_app(make_model, make_app, 1, EngineError("the cache burst: try again"))
    events = await events_of(app, endless(stream=True))
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert error["message"] == "the cache burst: try again"
    assert (error["code"], error["reason"]) == (500, "engine_error")
    assert [event for event in events if "DONE" in event] == []
    assert '"content":"H"' in events[-2]


async def test_a_fault_of_ours_in_a_stream_shows_no_details(
    make_model: Callable[..., ServedModel], make_app: Callable[[ModelRegistry], Starlette]
) -> None:
    app = failing_app(make_model, make_app, 1, ZeroDivisionError("secret detail"))
    last = (await events_of(app, endless(stream=True)))[-1]
    assert "internal_error" in last
    assert "secret" not in last


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_fails_at_once_is_a_proper_status(
    make_model: Callable[..., ServedModel], make_app: Callable[[ModelRegistry], Starlette], stream: bool
) -> None:
    app = failing_app(make_model, make_app, 0, EngineDead("the engine is gone: wait for the new one"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://argosy") as client:
        response = await client.post("/v1/chat/completions", json=endless(stream))
    assert response.status_code == 503
    assert response.json()["error"]["type"] == "ServiceUnavailableError"


class Slow:
    """A source whose first delta comes when told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.usage = Usage(prompt_tokens=1)
        self.timings = Timings(arrived=0.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aiter__(self) -> AsyncIterator[Delta]:
        await self.go.wait()
        yield Delta(text="late", finish_reason="stop")

    async def __aexit__(self, *_: object) -> None:
        return None


async def test_a_silent_stream_is_kept_alive_by_comments() -> None:
    source, client = Slow(), Client({})
    chunks = ChatChunks(AnswerShape(id="c", created=1, model="m"), source)
    response = EventStream(source, chunks, keep_alive_seconds=0.001)

    async def send(message: Message) -> None:
        await client.send(message)
        if len(client.sent) == 3:
            source.go.set()

    client._has_read = True
    await response(SCOPE, client.receive, send)
    assert client.sent[0]["type"] == "http.response.start"
    assert client.body.startswith(b": keep-alive\n\n: keep-alive\n\ndata: {")
    assert client.body.endswith(b"data: [DONE]\n\n")
    assert client.sent[-1]["more_body"] is False


async def test_role_and_first_text_travel_together_and_so_do_the_end_and_done(
    registry: ModelRegistry, make_app: Callable[[ModelRegistry], Starlette]
) -> None:
    client = Client({"model": "echo", "messages": [{"role": "user", "content": "Hi"}], "stream": True})
    await make_app(registry)(SCOPE, client.receive, client.send)
    writes = [message["body"].count(b"data: ") for message in client.sent[1:]]
    assert writes == [2, 1, 2]
