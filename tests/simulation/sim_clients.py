"""Clients of the gateway: each sends one request as uvicorn would hand it over, and notes how it ended, once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec
from sim_replicas import NUM_PIECES

from argosy.gateway.app import Gateway

ANSWERED, REFUSED, ERROR_EVENT, LOST = "answered", "refused", "error event", "connection lost"


class Ending(msgspec.Struct, frozen=True):
    """How a request ended. how: one of the words above. reason: the error's code. at: seconds of the world."""

    request: str
    how: str
    reason: str
    began: float
    at: float


class Clients:
    """Everybody who asks. gateway: None while there is none, which is a connection refused."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.gateway: Gateway | None = None
        self.endings: list[Ending] = []
        self.num_sent = 0
        self._clock = clock
        self._open: dict[str, asyncio.Task[None]] = {}

    def send(self, service: str) -> str:
        """One more request, in the background."""
        self.num_sent += 1
        request = f"{service}-{self.num_sent}"
        self._open[request] = asyncio.create_task(self._ask(service, request))
        return request

    async def finish(self) -> None:
        """Wait for every ending."""
        while self._open:
            await asyncio.wait(self._open.values())

    async def lose_connections(self) -> None:
        """The gateway's process is gone."""
        tasks = [*self._open.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def counted(self) -> Counter[str]:
        """How many ended how."""
        return Counter(each.how for each in self.endings)

    def failures(self) -> list[Ending]:
        """All that are no whole answer."""
        return [each for each in self.endings if each.how != ANSWERED]

    async def _ask(self, service: str, request: str) -> None:
        began = self._clock()
        how, reason = LOST, ""
        try:
            if self.gateway is not None:
                how, reason = await _exchange(self.gateway, service, request)
        except asyncio.CancelledError:
            how = LOST
        finally:
            self._open.pop(request, None)
            self.endings.append(Ending(request, how, reason, began, self._clock()))


async def _exchange(gateway: Gateway, service: str, request: str) -> tuple[str, str]:
    body = msgspec.json.encode({"model": service, "messages": [{"role": "user", "content": request}], "stream": True})
    inbox = [{"type": "http.request", "body": body, "more_body": False}]
    never = asyncio.get_running_loop().create_future()
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return inbox.pop() if inbox else await never

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await gateway.edge(_scope(body), receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1, f"{request} has {len(starts)} heads"
    assert not sent[-1].get("more_body"), f"{request} has no end"
    content = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return _ending(starts[0]["status"], content, request)


def _ending(status: int, content: bytes, request: str) -> tuple[str, str]:
    """What a client makes of an answer. Fails if it has two endings, none, or pieces of another's."""
    if status != 200:
        return REFUSED, str(msgspec.json.decode(content)["error"]["reason"])
    events = [event.removeprefix(b"data: ") for event in content.split(b"\n\n") if event]
    errors = [event for event in events if b'"error"' in event]
    is_done = events[-1:] == [b"[DONE]"]
    assert is_done != bool(errors), f"{request} ends {'twice' if errors else 'without a word'}: {events[-2:]}"
    pieces = [event for event in events if event not in errors and event != b"[DONE]"]
    texts = [msgspec.json.decode(piece)["choices"][0]["delta"]["content"] for piece in pieces]
    assert texts == [f"{request}/{number}" for number in range(len(texts))], f"{request} got {texts}"
    if errors:
        assert len(errors) == 1, f"{request} was told {len(errors)} errors"
        return ERROR_EVENT, str(msgspec.json.decode(errors[0])["error"]["reason"])
    assert len(texts) == NUM_PIECES, f"{request} was cut short and told it was whole"
    return ANSWERED, ""


def _scope(body: bytes) -> dict[str, Any]:
    headers = [(b"host", b"127.0.0.1:8000"), (b"content-type", b"application/json")]
    return {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "headers": [*headers, (b"content-length", str(len(body)).encode())],
    }
