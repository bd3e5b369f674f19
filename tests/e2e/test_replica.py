"""A whole replica under its real load and its worst days. Nothing cheaper covers two processes and the wire between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Start = Callable[..., AbstractAsyncContextManager[Any]]
Eventually = Callable[..., Awaitable[None]]

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
CUT_AFTER_SECONDS = 0.15


def mixed(number: int) -> tuple[str, dict[str, Any]]:
    """The number-th request of the mixture: route and body."""
    say = [{"role": "user", "content": f"Say something about the number {number}."}]
    kinds: list[tuple[str, dict[str, Any]]] = [
        (CHAT, {"messages": say, "max_tokens": 12, "stream": True}),
        (CHAT, {"messages": say, "max_tokens": 12}),
        (TEXT, {"prompt": f"{number} is", "max_tokens": 16, "stream": True, "stream_options": {"include_usage": True}}),
        (TEXT, {"prompt": [f"{number} is", "and"], "max_tokens": 6, "n": 2, "temperature": 1.0}),
        (CHAT, {"messages": say, "max_tokens": 40, "tools": [TOOL], "tool_choice": "required"}),
        (
            CHAT,
            {"messages": say, "max_tokens": 40, "stream": True}
            | {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}},
        ),
        (CHAT, {"messages": say, "max_tokens": 8, "logprobs": True, "n": 2, "temperature": 0.7, "stream": True}),
        (TEXT, {"prompt": f"{number}", "max_tokens": 24, "stop": ["."], "seed": number}),
    ]
    return kinds[number % len(kinds)]


def endings(answer: httpx.Response) -> list[str]:
    """The finish reasons of a complete answer, one per choice. A stream has `[DONE]` once, at its end."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return [choice["finish_reason"] for choice in answer.json()["choices"]]
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    choices = [choice for event in events for choice in json.loads(event.removeprefix("data: "))["choices"]]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


async def ask(client: httpx.AsyncClient, number: int) -> None:
    """Send the number-th request; every third one is cut off midway."""
    path, body = mixed(number)
    if number % 3 == 0:
        try:
            async with asyncio.timeout(CUT_AFTER_SECONDS), client.stream("POST", path, json=body) as answer:
                async for _ in answer.aiter_raw():
                    return
        except TimeoutError:
            return
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    wanted = body.get("n", 1) * (2 if isinstance(body.get("prompt"), list) else 1)
    ended = endings(answer)
    assert len(ended) == wanted, answer.text
    assert set(ended) <= {"stop", "length", "tool_calls"}


async def test_f06_two_hundred_mixed_requests_a_third_cut_off_leave_nothing_behind(
    replica: Start, eventually: Eventually
) -> None:
    # A small cache, so that its prefixes fill it in the first wave: from then on memory has no reason to grow.
    async with (
        replica("--kv-cache-bytes", "60000000") as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        gate = asyncio.Semaphore(24)

        async def gated(number: int) -> None:
            async with gate:
                await ask(client, number)

        async def wave(first: int, count: int) -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(first, first + count):
                    group.create_task(gated(number))
            await eventually(server.is_idle)

        await wave(0, 64)
        settled, own_settled = server.rss_bytes(), server.own_rss_bytes()
        await wave(64, 200)
        assert server.own_rss_bytes() - own_settled < 15e6
        assert server.rss_bytes() - settled < 150e6  # the soak says whether the library's own pools stop growing
        assert (await client.get("/load")).json() == {"server_load": 0}


class Streams:
    """Long streams, all of them begun, read in the background."""

    def __init__(self, client: httpx.AsyncClient, count: int, max_tokens: int = 900) -> None:
        self._client = client
        self._max_tokens = max_tokens
        self._began = [asyncio.Event() for _ in range(count)]
        self.last_event = time.monotonic()
        self.longest_gap = 0.0
        self.texts = [""] * count

    async def read_all(self) -> None:
        """Until every stream has ended, however it ends."""
        async with asyncio.TaskGroup() as group:
            for index in range(len(self.texts)):
                group.create_task(self._read(index))

    async def all_began(self) -> None:
        """Return when every one has given its first event."""
        for began in self._began:
            await began.wait()

    async def _read(self, index: int) -> None:
        body = {"prompt": f"Tale {index}:", "max_tokens": self._max_tokens, "ignore_eos": True, "stream": True}
        async with self._client.stream("POST", TEXT, json=body) as answer:
            async for text in answer.aiter_text():
                self._began[index].set()
                self.texts[index] += text
                now = time.monotonic()
                self.longest_gap = max(self.longest_gap, now - self.last_event)
                self.last_event = now


async def lose_the_engine(replica: Start, number: signal.Signals) -> None:
    """The engine's process is gone midway: every stream ends with one typed error, and so does the replica."""
    async with replica() as server, httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        streams = Streams(client, 8)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(streams.read_all())
            await streams.all_began()
            began = time.monotonic()
            os.kill(server.engine_pid, number)
        assert time.monotonic() - began < 8
        for text in streams.texts:
            last = json.loads(text.rstrip().rpartition("data: ")[2])
            assert last["error"]["reason"] == "engine_dead"
            assert last["error"]["code"] == 503
            assert text.count('"error":{') == 1
            assert "[DONE]" not in text
        assert await server.exit_code() == 1
        assert "Traceback" not in server.log.read_text()


async def test_f03_a_killed_engine_ends_every_stream_with_one_error_and_the_replica(replica: Start) -> None:
    await lose_the_engine(replica, signal.SIGKILL)


async def test_f04_a_hung_engine_is_noticed_and_ends_as_a_killed_one(replica: Start) -> None:
    await lose_the_engine(replica, signal.SIGSTOP)


async def test_f03_an_engine_killed_while_idle_ends_the_replica(replica: Start) -> None:
    async with replica() as server:
        os.kill(server.engine_pid, signal.SIGKILL)
        assert await server.exit_code() == 1


async def test_f05_more_than_the_cache_holds_is_queued_or_preempted_and_all_are_answered(
    replica: Start, eventually: Eventually
) -> None:
    # A cache of about a thousand tokens, and eight requests that come to want twice as many together.
    async with (
        replica("--kv-cache-bytes", "15000000") as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        body = {"prompt": "One upon a time", "max_tokens": 250, "ignore_eos": True, "temperature": 0}
        answers = await asyncio.gather(*(client.post(TEXT, json=body) for _ in range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        assert [answer.json()["usage"]["completion_tokens"] for answer in answers] == [250] * 8
        too_long = await client.post(TEXT, json={"prompt": [5] * 4000, "max_tokens": 1})
        assert too_long.status_code == 400
        assert too_long.json()["error"]["reason"] == "context_length_exceeded"
        await eventually(server.is_idle)


def nested_schema(depth: int) -> dict[str, Any]:
    """Twice the next level in each level: 2^depth strings, if it were written out."""
    both = {f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}, "b": {"$ref": f"#/$defs/d{i + 1}"}}}
            for i in range(depth)}  # fmt: skip
    return {"$ref": "#/$defs/d0", "$defs": both | {f"d{depth}": {"type": "string"}}}


EXPLOSIONS = {
    "regex that multiplies": {"structured_outputs": {"regex": "((a{0,1000}){0,1000}){0,1000}"}},
    "regex in 20,000 brackets": {"structured_outputs": {"regex": "(" * 20_000 + "a" + ")" * 20_000}},
    "pattern in a schema": {
        "structured_outputs": {"json": {"type": "string", "pattern": "((a{0,999}){0,999}){0,999}"}}
    },
    "grammar in 20,000 brackets": {"structured_outputs": {"grammar": "root ::= " + "(" * 20_000 + ")" * 20_000}},
    "grammar that does not end": {"structured_outputs": {"grammar": "root ::= ((((("}},
    "schema beyond the size": {"structured_outputs": {"json": {"enum": [f"value {i}" for i in range(9000)]}}},
}
SURVIVED = {
    "references to themselves": {"structured_outputs": {"json": {"$ref": "#"}}},
    "references that double": {"structured_outputs": {"json": nested_schema(40)}},
    "left recursion": {"structured_outputs": {"grammar": 'root ::= root "a" | "b"'}},
    "nested stars": {"structured_outputs": {"regex": "((((a*)*)*)*)*b"}},
    "a thousand choices": {"structured_outputs": {"choice": [f"choice {i:04}" for i in range(1000)]}},
}


async def test_d27_constraints_that_explode_are_refused_and_streams_flow_on(replica: Start) -> None:
    async with replica() as server, httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        streams = Streams(client, 2, max_tokens=4000)
        reading = asyncio.create_task(streams.read_all())
        try:
            await streams.all_began()
            for name, body in EXPLOSIONS.items():
                answer = await client.post(TEXT, json={"prompt": "a", "max_tokens": 4, **body})
                assert answer.status_code == 400, (name, answer.text)
                assert answer.json()["error"]["param"], name
            for name, body in SURVIVED.items():
                answer = await client.post(TEXT, json={"prompt": "a", "max_tokens": 4, **body})
                assert answer.status_code in (200, 400), (name, answer.text)
            await beside_a_crowd(client)
            assert streams.longest_gap < 4
        finally:
            reading.cancel()
            await asyncio.wait([reading])
        assert server.process.returncode is None


async def beside_a_crowd(client: httpx.AsyncClient) -> None:
    """Twenty explosions at once take neither the batch nor the known schemas from others."""
    known = {"prompt": "a", "max_tokens": 4, "structured_outputs": {"choice": ["yes", "no"]}}
    assert (await client.post(TEXT, json=known)).status_code == 200
    regexes = [f"((b{{0,{1000 + i}}}){{0,999}}){{0,999}}" for i in range(20)]
    async with asyncio.TaskGroup() as group:
        crowd = [
            group.create_task(client.post(TEXT, json={"prompt": "a", "structured_outputs": {"regex": regex}}))
            for regex in regexes
        ]
        began = time.monotonic()
        plain, again = await asyncio.gather(
            client.post(TEXT, json={"prompt": "a", "max_tokens": 4}), client.post(TEXT, json=known)
        )
        assert (plain.status_code, again.status_code) == (200, 200)
        assert time.monotonic() - began < 6
    statuses = [task.result().status_code for task in crowd]
    assert set(statuses) == {400, 429}
    assert all(task.result().headers.get("retry-after") for task in crowd if task.result().status_code == 429)


async def latencies(client: httpx.AsyncClient, until: asyncio.Event) -> list[float]:
    """Seconds per small request, one after another, until told to stop."""
    taken = []
    while not until.is_set() or len(taken) < 20:
        began = time.monotonic()
        answer = await client.post(TEXT, json={"prompt": "abc", "max_tokens": 3})
        assert answer.status_code == 200, answer.text
        taken.append(time.monotonic() - began)
    return sorted(taken)


async def attack(server: Any, client: httpx.AsyncClient) -> None:
    """Idle and half-open connections by the thousand, then bodies that are large, deep or endless."""
    openings = (b"", b"GET / HTTP/1.1\r\nHost: local", b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\n\r\n"[:-2])
    held = []
    for number in range(3000):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(openings[number % len(openings)])
        held.append(writer)
    headers = {"content-type": "application/json"}
    bodies = (
        b'{"messages":' + b"[" * 100_000,
        b'{"messages":[' + b",".join([b'{"role":"user","content":""}'] * 100_000) + b"]}",
        b'{"prompt":"' + b"a" * 7_000_000 + b'"}',
        b'{"prompt":"' + b"a" * 100_000_000 + b'"}',
    )
    for _ in range(3):
        for body in bodies:
            answer = await client.post(TEXT, content=body, headers=headers)
            assert answer.status_code in (400, 413)
    for writer in held:
        writer.transport.abort()


async def test_d25_an_attack_costs_others_little_time_and_the_server_little_memory(replica: Start) -> None:
    async with (
        replica("--engine", "echo") as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as honest,
        httpx.AsyncClient(base_url=server.url, timeout=30) as hostile,
    ):
        over = asyncio.Event()
        over.set()
        before = await latencies(honest, over)
        await attack(server, hostile)
        settled = server.rss_bytes()
        over.clear()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(latencies(honest, over))
            await attack(server, hostile)
            over.set()
        during = watching.result()
        assert during[len(during) * 95 // 100] < max(2 * before[len(before) * 95 // 100], 0.25)
        assert server.rss_bytes() - settled < 30e6


async def test_f20_a_short_soak_leaves_memory_and_files_where_they_were() -> None:
    """The half hour is `python -m benchmarks soak`; this keeps its machinery honest, and sees gross leaks."""
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks", "soak", "--engine", "echo", "--minutes", "0.15", "--rehearsal",
        cwd=root, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert "answers that were wrong | 0 " in said.decode()
