"""Requests whose answer is known beforehand, and how each of them ended: once, and with nothing lost or repeated.

The echo engine answers with its prompt, and every digit and space is a token of its own, so the right answer to a
prompt of numbers is its beginning. No two prompts are alike, and no piece of one comes twice: text that is missing,
repeated or another request's is seen. An ending is one of four; everything else is a violation:

    whole         the right text to its end, and `[DONE]` where it was a stream
    refused       a status with an error in JSON that says why
    error_event   a stream that began right and ends in an error event, without `[DONE]`
    lost          the connection broke, while the gateway itself was down
"""

from __future__ import annotations

import asyncio
import itertools
import time
from enum import StrEnum
from typing import Any

import httpx
import msgspec

from argosy.core.engine import EngineSettings
from argosy.core.inference_service import GatewayPolicy, InferenceServiceSpec, RevisionTemplate
from benchmarks.cloud import fixed

_NEW_TOKENS = 48
_PATIENCE_SECONDS = 90.0
_HOLD_SECONDS = 30.0
_ERRORS = (429, 502, 503, 504)


class Kind(StrEnum):
    """How a request ended."""

    WHOLE = "whole"
    REFUSED = "refused"
    ERROR_EVENT = "error_event"
    LOST = "lost"
    VIOLATION = "violation"


class Ending(msgspec.Struct, frozen=True):
    """One request: its number, its ending, and for all but whole ones what was said. Units: monotonic seconds."""

    number: int
    kind: Kind
    said: str
    sent_at: float
    ended_at: float


class Outages:
    """When the gateway was down."""

    def __init__(self) -> None:
        self._spans: list[list[float]] = []

    def begin(self) -> None:
        """It is killed now."""
        self._spans.append([time.monotonic(), float("inf")])

    def end(self) -> None:
        """It answers again."""
        for span in self._spans:
            span[1] = min(span[1], time.monotonic())

    def cover(self, ending: Ending) -> bool:
        """Whether the gateway was down at some time between a request and its ending."""
        return any(began <= ending.ended_at and ending.sent_at <= ended for began, ended in self._spans)


class Load:
    """Requests at a steady rate for ever, every second one a stream. endings: of those that are over."""

    def __init__(self, url: str, service: str, rate: float) -> None:
        self.endings: list[Ending] = []
        self.outages = Outages()
        self.num_open = 0
        self._url = url
        self._service = service
        self._pause = 1 / rate
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Send until `stop`, then wait for what is open. Cancels: what is open is cut off and not counted."""
        # A connection for each request: one that was kept and is broken says nothing about the request sent on it.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=_PATIENCE_SECONDS, limits=limits) as client,
            asyncio.TaskGroup() as asks,
        ):
            began = time.monotonic()
            for number in itertools.count():
                asks.create_task(self._ask(client, number))
                pause = began + (number + 1) * self._pause - time.monotonic()
                try:
                    async with asyncio.timeout(max(0.0, pause)):
                        await self._stop.wait()
                    return
                except TimeoutError:
                    continue

    def stop(self) -> None:
        """Send no more."""
        self._stop.set()

    def violations(self) -> list[str]:
        """What must not have happened, a line each."""
        return [f"request {each.number}: {each.said}" for each in self.endings if each.kind is Kind.VIOLATION]

    async def ask_one(self) -> bool:
        """Whether a request is answered now; not counted."""
        try:
            async with httpx.AsyncClient(base_url=self._url, timeout=5.0) as client:
                kind, _ = await _whole(client, _body(self._service, 0, is_stream=False), _prompt(0)[:_NEW_TOKENS])
        except httpx.HTTPError:
            return False
        return kind is Kind.WHOLE

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        is_stream = number % 2 == 0
        body, right = _body(self._service, number, is_stream=is_stream), _prompt(number)[:_NEW_TOKENS]
        sent_at = time.monotonic()
        self.num_open += 1
        try:
            kind, said = await (_stream if is_stream else _whole)(client, body, right)
        except httpx.TimeoutException:
            kind, said = Kind.VIOLATION, f"no ending within {_PATIENCE_SECONDS:.0f} s"
        except httpx.TransportError as error:
            kind, said = Kind.LOST, f"{type(error).__name__}: {error}"
        self.num_open -= 1
        ending = Ending(number, kind, said, sent_at, time.monotonic())
        if kind is Kind.LOST and not self.outages.cover(ending):
            ending = msgspec.structs.replace(ending, kind=Kind.VIOLATION, said=f"lost while the gateway was up: {said}")
        self.endings.append(ending)


def echo_spec(replicas: int, steps_per_second: int = 100) -> InferenceServiceSpec:
    """A service that answers with its prompt, at a model's pace."""
    settings = EngineSettings(engine_args={"steps_per_second": steps_per_second})
    return InferenceServiceSpec(
        template=RevisionTemplate(model="smollm2", engine="echo", engine_settings=settings),
        scaling=fixed(replicas),
        gateway=GatewayPolicy(hold_seconds=_HOLD_SECONDS),
    )


def _prompt(number: int) -> str:
    return " ".join(str(1_000_000 + number * 16 + word) for word in range(16))


def _body(service: str, number: int, *, is_stream: bool) -> dict[str, Any]:
    return {"model": service, "prompt": _prompt(number), "max_tokens": _NEW_TOKENS, "stream": is_stream}


async def _whole(client: httpx.AsyncClient, body: dict[str, Any], right: str) -> tuple[Kind, str]:
    answer = await client.post("/v1/completions", json=body)
    if answer.status_code != 200:
        return _refused(answer.status_code, answer.text)
    text = answer.json()["choices"][0]["text"]
    return (Kind.WHOLE, "") if text == right else (Kind.VIOLATION, f"answered {text!r} instead of {right!r}")


async def _stream(client: httpx.AsyncClient, body: dict[str, Any], right: str) -> tuple[Kind, str]:
    text, ending, said = "", None, ""
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            return _refused(answer.status_code, (await answer.aread()).decode())
        try:
            async for line in answer.aiter_lines():
                if not line.startswith("data: "):
                    continue
                if ending is not None:
                    return Kind.VIOLATION, f"{line!r} after the stream's end"
                content = line.removeprefix("data: ")
                if content == "[DONE]":
                    ending = Kind.WHOLE
                elif content.startswith('{"error"'):
                    ending, said = Kind.ERROR_EVENT, _reason(content)
                else:
                    text += "".join(choice["text"] for choice in msgspec.json.decode(content)["choices"])
        except httpx.TransportError as error:
            if right.startswith(text):
                raise
            return Kind.VIOLATION, f"streamed {text!r} instead of {right!r}, then {type(error).__name__}"
    if ending is None:
        return Kind.VIOLATION, f"a stream that ended without a mark after {text!r}"
    if text == right or (ending is Kind.ERROR_EVENT and right.startswith(text)):
        return ending, said
    return Kind.VIOLATION, f"streamed {text!r} instead of {right!r}, then {ending.value} {said}"


def _refused(status: int, body: str) -> tuple[Kind, str]:
    try:
        reason = _reason(body)
    except (msgspec.DecodeError, KeyError, TypeError):
        return Kind.VIOLATION, f"{status} without an error in JSON: {body[:200]!r}"
    return (Kind.REFUSED if status in _ERRORS else Kind.VIOLATION), f"{status} {reason}"


def _reason(body: str) -> str:
    error = msgspec.json.decode(body)["error"]
    return f"{error['reason']}: {error['message']}"
