"""The client against the real API, over a real socket: what the server raises is raised here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from live_control import LiveControl, live_control, service

from argosy.client.channel import error_of
from argosy.client.control_client import ControlClient, is_settled, open_client
from argosy.core import errors
from argosy.core.engine import EngineSettings
from argosy.core.errors import (
    ArgosyError,
    BackendError,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    SpecError,
    Unauthorized,
    Unavailable,
)
from argosy.core.inference_service import InferenceService, InferenceServiceSpec, RevisionTemplate, ServicePhase
from argosy.core.load_report import GatewayReport, ServiceTraffic
from argosy.core.metadata import Event, Metadata
from argosy.core.scaling import ScalingPolicy
from argosy.core.state_dir import ControlAddress, StateDir

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connected(directory: Path, **options: object) -> AsyncIterator[tuple[LiveControl, ControlClient]]:
    async with (
        live_control(directory, **options) as control,  # type: ignore[arg-type]
        ControlClient(control.url, control.key, timeout_seconds=10) as client,
    ):
        yield control, client


def with_spares(number: int) -> Callable[[InferenceServiceSpec], InferenceServiceSpec]:
    return lambda spec: msgspec.structs.replace(spec, warm_spares=number)


async def deployed(client: ControlClient, declared: InferenceService) -> InferenceService:
    await client.apply(declared)
    states = [each async for each in client.wait_ready(declared.metadata.name, timeout_seconds=5)]
    return states[-1]


async def test_a_service_from_its_declaration_to_its_end(tmp_path) -> None:
    async with connected(tmp_path) as (_, client):
        assert await client.services() == []
        plan = await client.plan(service())
        assert plan.rendered
        assert await client.services() == []
        ready = await deployed(client, service())
        assert ready.status.phase is ServicePhase.READY
        assert await client.service("chat") == ready
        assert [each.metadata.name for each in await client.services()] == ["chat"]
        assert [each.short_name for each in await client.revisions("chat")] == ["v1"]
        (replica,) = await client.replicas("chat")
        assert await client.replicas() == [replica]
        assert "is ready" in (await client.why("chat")).answer
        assert [each.service for each in (await client.top()).services] == ["chat"]
        assert {each.service for each in await client.events()} == {"chat"}
        assert await client.events("chat") == await client.events()
        lines = [line async for line in client.logs("chat", replica=replica.status.name)]
        assert "serve smollm2" in lines[0]
        await client.delete("chat")
        with pytest.raises(NotFound, match="none yet"):
            await client.service("chat")


async def test_every_error_is_the_one_the_server_raised(tmp_path) -> None:
    async with connected(tmp_path) as (control, client):
        stored = await client.apply(service())
        with pytest.raises(SpecError, match=r"template\.model is empty"):
            await client.apply(service("other", model=" "))
        local = RevisionTemplate(model="m", engine_settings=EngineSettings(cache_dir=tmp_path))
        with pytest.raises(SpecError, match="cache_dir"):
            await client.apply(InferenceService(metadata=Metadata(name="o"), spec=InferenceServiceSpec(template=local)))
        await client.modify("chat", with_spares(1))
        with pytest.raises(Conflict, match="changed since it was read"):
            await client.apply(msgspec.structs.replace(stored, spec=with_spares(2)(stored.spec)))
        for refused in (client.service, client.delete, client.revisions, client.why, client.replicas):
            with pytest.raises(NotFound, match="there is no service 'absent'; services: chat"):
                await refused("absent")
        with pytest.raises(NotFound):
            await anext(client.logs("absent"))
        with pytest.raises(NotFound):
            await anext(client.wait_ready("absent", timeout_seconds=5))
        with pytest.raises(InvalidRequest, match="not a valid name"):
            await client.service("a b")
        with pytest.raises(NotFound):
            await client.service("../v1/top")
        async with ControlClient(control.url, "ak-wrong-key") as stranger:
            with pytest.raises(Unauthorized):
                await stranger.services()
            with pytest.raises(Unauthorized):
                await anext(stranger.watch_services())
        control.lifecycle.drain()
        with pytest.raises(Unavailable) as caught:
            await client.services()
        assert caught.value.retry_after_seconds == 1
        control.lifecycle.ready()


def all_errors(root: type[ArgosyError] = ArgosyError) -> list[type[ArgosyError]]:
    return [root, *(each for leaf in root.__subclasses__() for each in all_errors(leaf))]


@pytest.mark.parametrize("kind", [each for each in all_errors() if each.__module__ == errors.__name__])
def test_every_error_of_the_tree_comes_back_as_itself(kind: type[ArgosyError]) -> None:
    body = msgspec.json.encode({"error": {"message": "said", "reason": kind.code, "param": "field"}})
    found = error_of(kind.status, "7", body)
    assert type(found) is kind
    assert found.message == "said"
    if isinstance(found, Overloaded | Unavailable):
        assert found.retry_after_seconds == 7
    else:
        assert found.param == "field"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b"<html>", NotFound),
        (429, b"", Overloaded),
        (503, b'{"error":{"message":"m","reason":"draining"}}', Unavailable),
        (502, b"nonsense", BackendError),
        (500, b"{}", ArgosyError),
        (418, b'{"error":{"message":"m","reason":"teapot"}}', InvalidRequest),
    ],
)
def test_an_answer_that_is_not_of_ours_is_an_error_too(status: int, body: bytes, kind: type[ArgosyError]) -> None:
    assert type(error_of(status, "soon", body)) is kind


async def test_modify_reads_again_when_somebody_was_faster(tmp_path) -> None:
    async with connected(tmp_path) as (control, client):
        await client.apply(service())

        async def label(number: int) -> None:
            await client.modify(
                "chat",
                lambda spec: msgspec.structs.replace(
                    spec, scaling=ScalingPolicy(max_replicas=spec.scaling.max_replicas + 1)
                ),
            )

        async with asyncio.TaskGroup() as writers:
            for number in range(10):
                writers.create_task(label(number))
        assert (await client.service("chat")).spec.scaling.max_replicas == 11
        assert (await control.store.get(InferenceService, "chat")).metadata.generation == 11


async def test_apply_without_a_version_rules_and_with_one_is_careful(tmp_path) -> None:
    async with connected(tmp_path) as (_, client):
        first = await client.apply(service())
        assert (await client.apply(service())).metadata.generation == 1
        second = await client.apply(service(model="other"))
        assert second.metadata.generation == 2
        with pytest.raises(Conflict):
            await client.apply(first)


async def test_waiting_tells_each_transition_and_ends_when_it_is_ready(tmp_path) -> None:
    async with connected(tmp_path) as (control, client):
        control.backend.start_seconds = lambda _: 0.15
        await client.apply(service())
        states = [each async for each in client.wait_ready("chat", timeout_seconds=5)]
        phases = [each.status.phase for each in states]
        assert phases[-1] is ServicePhase.READY
        assert len(phases) > 1
        assert ServicePhase.READY not in phases[:-1]
        assert all(one.status != other.status for one, other in itertools.pairwise(states))


async def test_waiting_ends_with_the_failure_with_the_time_or_with_the_service(tmp_path) -> None:
    async with connected(tmp_path) as (control, client):
        control.backend.failing.add("bad-v1")
        assert (await deployed(client, service("bad"))).status.phase is ServicePhase.FAILED
        control.backend.start_seconds = lambda _: 60.0
        await client.apply(service("slow"))
        with pytest.raises(DeadlineExceeded, match=r"'slow' is \w+, and not ready after 0\.3 s"):
            async for _ in client.wait_ready("slow", timeout_seconds=0.3):
                pass
        async with aclosing(client.wait_ready("slow", timeout_seconds=5)) as states:
            await anext(states)
            await client.delete("slow")
            with pytest.raises(NotFound):
                async for _ in states:
                    pass


async def test_a_control_plane_that_comes_back_is_waited_for(tmp_path) -> None:
    async with live_control(tmp_path) as first, ControlClient(first.url, first.key) as client:
        first.backend.start_seconds = lambda _: 60.0
        await client.apply(service())
        states = client.wait_ready("chat", timeout_seconds=20)
        assert (await anext(states)).status.phase is not ServicePhase.READY
        port = first.port
        first.plane.end_watches()
        await first.listener.stop(1.0)
        waiting = asyncio.create_task(_last(states))
        await asyncio.sleep(0)
        async with live_control(tmp_path, port=port, store=first.store, keys=first.keys), asyncio.timeout(10):
            assert (await waiting).status.phase is ServicePhase.READY


async def _last(states: AsyncIterator[InferenceService]) -> InferenceService:
    return [each async for each in states][-1]


async def test_watches_tell_what_is_there_and_every_change(tmp_path) -> None:
    async with connected(tmp_path) as (control, client):
        await client.apply(service("a"))
        async with aclosing(client.watch_services()) as changes, aclosing(client.watch_events("b")) as events:
            assert (await anext(changes)).resource.metadata.name == "a"
            await client.apply(service("b"))
            assert (await anext(events)).resource.service == "b"
            await client.delete("a")
            async for change in changes:
                if change.is_deleted:
                    assert change.resource.metadata.name == "a"
                    break
        await control.no_streams()


async def test_a_gateway_hears_of_routes_and_is_heard(tmp_path) -> None:
    async with connected(tmp_path) as (control, client):
        async with aclosing(client.watch_routes()) as tables:
            first = await anext(tables)
            await client.apply(service())
            async for table in tables:
                if table.services and table.services[0].revisions[0].endpoints:
                    break
            assert (table.epoch, table.version > first.version) == (first.epoch, True)
        await client.send_report("g1", GatewayReport(epoch="e", services=(ServiceTraffic(service="chat", held=3),)))
        assert (await client.top()).services[0].num_requests_held == 3
        assert [*control.loop.world.ledger.reports(control.loop.clock())] == ["g1"]


async def test_words_with_line_separators_of_unicode_do_not_break_a_stream(tmp_path) -> None:
    async with connected(tmp_path) as (control, client):
        words = "one\u2028two\u0085three"
        event = Event(metadata=Metadata(name="chat-1"), service="chat", subject="chat", reason="Told", message=words)
        await control.store.put(event)
        async with aclosing(client.watch_events()) as changes:
            assert (await anext(changes)).resource.message == words


async def test_logs_are_followed_until_one_has_enough(tmp_path) -> None:
    async with connected(tmp_path) as (control, client):
        await deployed(client, service())
        async with aclosing(client.logs("chat", follow=True)) as lines:
            assert "starting" in await anext(lines)
            assert await anext(lines) == "ready"
            (status,) = await control.backend.list()
            control.backend.crash(status.name, status.replicas[0].name)
            assert "exit code" in await anext(lines)
        await control.no_streams()


async def test_nobody_at_the_url_says_what_to_do(tmp_path) -> None:
    async with live_control(tmp_path) as control:
        url = control.url
    async with ControlClient(url, "key") as client:
        with pytest.raises(BackendError, match=r"no control plane answers at http://127\.0\.0\.1:\d+: start one with"):
            await client.services()
        with pytest.raises(BackendError, match="argosy up"):
            await anext(client.watch_services())
        with pytest.raises(BackendError, match="argosy up"):
            await anext(client.wait_ready("chat", timeout_seconds=1))


async def serve_raw(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> asyncio.Server:
    return await asyncio.start_server(answer, "127.0.0.1", 0)  # type: ignore[arg-type]


def address(server: asyncio.Server) -> str:
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_what_answers_something_else_is_no_control_plane() -> None:
    async def web_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>")
        writer.close()

    async with await serve_raw(web_page) as server, ControlClient(address(server)) as client:
        with pytest.raises(BackendError, match="no control plane of this version"):
            await client.services()


async def test_one_that_never_answers_has_a_deadline() -> None:
    hanging = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hanging.wait()
        writer.close()

    async with await serve_raw(silent) as server, ControlClient(address(server), timeout_seconds=0.1) as client:
        with pytest.raises((DeadlineExceeded, BackendError)):
            await client.services()
        hanging.set()


async def test_reading_is_tried_again_when_the_connection_breaks_and_writing_is_not() -> None:
    asked: list[bytes] = []

    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n")).split(b" ")[0])
        await reader.readuntil(b"\r\n\r\n")
        if len(asked) == 2:
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\nconnection: close\r\n\r\n{"items":[]}')
        writer.close()

    async with await serve_raw(breaking) as server, ControlClient(address(server)) as client:
        assert await client.services() == []
        with pytest.raises(BackendError, match="broke"):
            await client.delete("chat")
    assert asked == [b"GET", b"GET", b"DELETE"]


def test_open_client_finds_the_control_plane_of_a_state_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("ARGOSY_API_KEY", raising=False)
    state = StateDir(tmp_path)
    with pytest.raises(BackendError, match="argosy up"):
        open_client(tmp_path)
    state.control_file.write_bytes(msgspec.json.encode(ControlAddress(url="http://127.0.0.1:1/", process_id=1)))
    state.admin_key.write_text("ak-near\n")

    def shown(client: ControlClient) -> tuple[str, str | None]:
        return client.url, client._channel._http.headers.get("authorization")

    assert shown(open_client(tmp_path)) == ("http://127.0.0.1:1", "Bearer ak-near")
    assert shown(open_client(tmp_path, "http://localhost:9")) == ("http://localhost:9", "Bearer ak-near")
    # The key of this machine's control plane is shown to no other machine.
    assert shown(open_client(tmp_path, "https://elsewhere.example")) == ("https://elsewhere.example", None)
    monkeypatch.setenv("ARGOSY_API_KEY", "ak-given")
    assert shown(open_client(tmp_path, "https://elsewhere.example"))[1] == "Bearer ak-given"
    state.control_file.write_text("{")
    with pytest.raises(BackendError, match="damaged"):
        open_client(tmp_path)


def test_a_spec_that_was_not_seen_yet_is_not_settled() -> None:
    fresh = service()
    changed = msgspec.structs.replace(
        fresh,
        metadata=msgspec.structs.replace(fresh.metadata, generation=2),
        status=msgspec.structs.replace(fresh.status, observed_generation=1, phase=ServicePhase.READY),
    )
    assert not is_settled(changed)
    assert is_settled(
        msgspec.structs.replace(changed, status=msgspec.structs.replace(changed.status, observed_generation=2))
    )
