"""Streams begin at once, tell all there is and every change, and end when anyone of the two goes."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import msgspec
import pytest
from live_control import LiveControl, live_control, service

from argosy.api.streams import Streams
from argosy.backends.fake import FakeBackend
from argosy.core.errors import Conflict, StoreError
from argosy.core.inference_service import InferenceService
from argosy.core.interfaces import Change
from argosy.stores.memory import MemoryStore
from argosy.stores.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

WATCH = "/v1/inferenceservices?watch=true"


class Told:
    """The events and comments of one stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def line(self) -> str:
        """The next line that is not empty."""
        async with asyncio.timeout(5):
            async for line in self._lines:
                if line:
                    return line
        return "(end)"

    async def event(self) -> Any:
        """The next event's value; comments are passed over."""
        while True:
            line = await self.line()
            if line.startswith("data: "):
                return json.loads(line.removeprefix("data: "))
            assert line.startswith((":", "event:")), line


async def opened(control: LiveControl, path: str) -> AsyncIterator[Told]:
    async with control.http(timeout=10) as http, http.stream("GET", path) as response:
        assert response.status_code == 200
        yield Told(response)


async def test_a_watch_is_connected_before_anything_happens(tmp_path) -> None:
    async with live_control(tmp_path) as control:
        async for told in opened(control, WATCH):
            assert told.response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert told.response.headers["cache-control"] == "no-cache"
            assert (await told.line()).startswith(":")
            stored = await control.store.put(service())
            event = await told.event()
            assert msgspec.convert(event["resource"], InferenceService) == stored
            assert event["is_deleted"] is False


async def test_a_watch_tells_all_there_is_then_changes_and_the_end(tmp_path) -> None:
    async with live_control(tmp_path) as control:
        for name in ("a", "b"):
            await control.store.put(service(name))
        async for told in opened(control, WATCH):
            assert {(await told.event())["resource"]["metadata"]["name"] for _ in range(2)} == {"a", "b"}
            await control.store.delete(InferenceService, "a")
            while True:  # the loop writes statuses beside us
                event = await told.event()
                if event["is_deleted"]:
                    break
            assert event["resource"]["metadata"]["name"] == "a"


async def test_a_silent_stream_says_that_it_lives(tmp_path) -> None:
    async with live_control(tmp_path, streams=Streams(heartbeat_seconds=0.01)) as control:
        async for told in opened(control, WATCH):
            for _ in range(3):
                assert await told.line() == ": nothing new"


@pytest.mark.parametrize("path", [WATCH, "/v1/routes?watch=true", "/v1/events?watch=true"])
async def test_a_reader_that_goes_away_ends_its_watch(tmp_path, path) -> None:
    async with live_control(tmp_path) as control:
        async for told in opened(control, path):
            await told.line()
            assert control.plane.streams.num_open == 1
        await control.no_streams()
        assert not control.store._watchers._by_kind[InferenceService][1:]  # type: ignore[attr-defined]  # the loop's own


async def test_the_end_of_the_server_ends_every_stream(tmp_path) -> None:
    async with live_control(tmp_path) as control:
        async for told in opened(control, WATCH):
            await told.line()
            control.plane.end_watches()
            while (line := await told.line()) != "(end)":
                assert line.startswith((":", "data:"))
        async for told in opened(control, WATCH):  # one that comes later is over at once
            while (line := await told.line()) != "(end)":
                assert line.startswith((":", "data:"))


async def test_asking_for_the_head_of_a_stream_opens_none(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        for path in (WATCH, "/v1/routes?watch=true"):
            answer = await http.head(path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        await control.no_streams()


async def test_one_stream_too_many_is_told_to_come_back(tmp_path) -> None:
    async with live_control(tmp_path, streams=Streams(max_streams=2)) as control, control.http() as http:
        async for first in opened(control, WATCH):
            async for second in opened(control, "/v1/events?watch=true"):
                await first.line()
                await second.line()
                for path in (WATCH, "/v1/routes?watch=true"):
                    refused = await http.get(path)
                    assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
                assert (await http.get("/v1/inferenceservices")).status_code == 200
        await control.no_streams()
        async for told in opened(control, WATCH):
            await told.line()


async def test_routes_are_told_as_soon_as_they_change(tmp_path) -> None:
    async with live_control(tmp_path) as control:
        async for told in opened(control, "/v1/routes?watch=true"):
            first = await told.event()
            assert (first["version"], first["services"]) == (1, [])
            await control.store.put(service())
            while True:
                table = await told.event()
                assert table["epoch"] == first["epoch"]
                if table["services"] and table["services"][0]["revisions"][0].get("endpoints"):
                    break
            assert table["version"] > 1


async def test_events_are_watched_of_one_service_or_of_all(tmp_path) -> None:
    async with live_control(tmp_path) as control:
        await control.store.put(service("a"))
        await control.store.put(service("b"))
        async for told in opened(control, "/v1/events?watch=true&service=b"):
            assert (await told.event())["resource"]["service"] == "b"


async def test_followed_logs_come_line_by_line_from_every_replica(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        two = {
            "metadata": {"name": "chat"},
            "spec": {"template": {"model": "m"}, "scaling": {"min_replicas": 2, "max_replicas": 2}},
        }
        await http.put("/v1/inferenceservices/chat", json=two)
        await control.ready(replicas=2)
        (status,) = await control.backend.list()
        names = {each.name for each in status.replicas}
        async for told in opened(control, "/v1/inferenceservices/chat/logs?follow=true"):
            lines = [await told.line() for _ in range(4)]
            assert {line.partition(" | ")[0] for line in lines} == names
            control.backend.crash(status.name, status.replicas[0].name)
            assert "ended with exit code" in await told.line()
        await control.no_streams()


async def test_f09_a_store_that_fails_is_told_within_the_stream(tmp_path) -> None:
    class Failing(MemoryStore):
        async def watch(self, kind: Any) -> Any:
            yield Change(resource=service())
            raise StoreError("the disk is gone: look at it")

    async with live_control(tmp_path) as control:
        control.plane._store = Failing()
        async for told in opened(control, WATCH):
            await told.event()
            lines = [await told.line(), await told.line(), await told.line()]
            assert lines[0] == "event: error"
            assert json.loads(lines[1].removeprefix("data: "))["error"]["reason"] == "store_error"
            assert lines[2] == "(end)"


async def test_f06_a_reader_that_stands_still_is_cut_off_and_costs_little(tmp_path) -> None:
    limits = {"stall_seconds": 0.2}
    async with (
        SqliteStore(tmp_path / "store.sqlite") as store,
        live_control(tmp_path, store=store, limits=limits) as control,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", control.port, limit=1024)
        head = f"GET {WATCH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {control.key}\r\n\r\n"
        writer.write(head.encode())
        await reader.readuntil(b"nothing new")
        await store.put(service("big"))
        async with asyncio.timeout(20):
            while control.plane.streams.num_open:
                current = await store.get(InferenceService, "big")
                labels = {"text": secrets.token_hex(50_000)}
                metadata = msgspec.structs.replace(current.metadata, labels=labels)
                with suppress(Conflict):  # the loop writes the status beside us
                    await store.put(msgspec.structs.replace(current, metadata=metadata))
        writer.close()
        assert 'argosy_client_disconnects_total{reason="stalled"} 1.0' in control.metrics.expose().decode()


async def test_logs_of_a_backend_that_fails_say_so(tmp_path) -> None:
    class Failing(FakeBackend):
        async def logs(self, name: str, replica: str, *, follow: bool) -> Any:
            yield "one line"
            raise StoreError("the log cannot be read: look at the disk")

    async with live_control(tmp_path) as control, control.http() as http:
        await http.put(
            "/v1/inferenceservices/chat", json={"metadata": {"name": "chat"}, "spec": {"template": {"model": "m"}}}
        )
        await control.ready()
        control.plane._backend = Failing()
        lines = (await http.get("/v1/inferenceservices/chat/logs")).text.splitlines()
        assert lines == ["one line", "(the log ends here: the log cannot be read: look at the disk)"]
