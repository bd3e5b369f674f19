"""A request's whole way: client, edge, gateway, connection, replica, and back."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from scripted import (
    ANSWER,
    DONE,
    STREAM_HEAD,
    USAGE_COMMENT,
    answer,
    eventually,
    flood,
    gated,
    post,
    raw,
    reset,
    route,
    silence,
    stream,
)

from argosy.core.errors import BackendError
from argosy.core.inference_service import ShadowPolicy, StickyPolicy, StickySource
from argosy.core.load_report import ReplicaReport
from argosy.core.routing import RevisionRoute
from argosy.gateway.outlier import EndpointHealth, HealthPhase
from argosy.web.lifecycle import Phase

pytestmark = pytest.mark.anyio
EVENTS = ("data: one\n\n", "data: two\n\n", "data: three\n\n")


async def test_an_answer_passes_unchanged_and_says_who_gave_it(live, replicas) -> None:
    (a,) = await replicas("chat-v1-aaaaa")
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        got = await gateway.chat(temperature=0.5)
    assert (got.status_code, got.json()) == (200, ANSWER)
    assert [got.headers[f"x-argosy-{what}"] for what in ("service", "revision", "replica")] == [
        "chat",
        "v1",
        "chat-v1-aaaaa",
    ]
    assert a.requests[0].path == b"/v1/chat/completions"
    assert b'"temperature":0.5' in a.requests[0].body


async def test_a_stream_passes_event_by_event_without_the_usage_comment(live, replicas) -> None:
    (a,) = await replicas("a")
    a.default = stream(*EVENTS, USAGE_COMMENT + DONE, wait_before=2)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        async with gateway.client.stream("POST", "/v1/chat/completions", json={"model": "chat", "stream": True}) as got:
            pieces = got.aiter_bytes()
            received = b""
            while b"two" not in received:
                received += await anext(pieces)
            a.go.set()
            received += b"".join([piece async for piece in pieces])
        assert received.decode() == "".join(EVENTS) + DONE
        assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
        await eventually(lambda: gateway.service().counters("v1").completions == 1)
        counters = gateway.service().counters("v1")
        assert (counters.prompt_tokens, counters.generation_tokens, counters.errors) == (5, 3, 0)
        assert sum(counters.ttft_counts) == sum(counters.tpot_counts) == 1


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize"])
async def test_every_path_of_the_data_plane_passes(live, replicas, path) -> None:
    (a,) = await replicas("a")
    a.default = answer({"anything": [1, 2]})
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        got = await gateway.client.post(path, json={"model": "chat", "input": "x", "prompt": "x", "tokens": [1]})
    assert got.json() == {"anything": [1, 2]}
    assert a.requests[0].path == path.encode()


async def test_d19_nothing_of_the_clients_goes_upstream_but_the_body_and_its_ids(live, replicas, tmp_path) -> None:
    (a,) = await replicas("a")
    key = tmp_path / "replica.key"
    key.write_text("ak-of-the-replicas\n")
    async with live(api_keys=("the-clients-key",), replica_key_file=key) as gateway:
        await gateway.publish(route(a.endpoint()))
        body = b'{"model":"chat","api_base":"http://evil.example","base_url":"http://evil.example","messages":[]}'
        hostile = (
            "authorization: Bearer the-clients-key",
            "x-request-id: my-id",
            "x-forwarded-for: 10.0.0.1",
            "x-argosy-usage: 0",
            "cookie: a=b",
            "origin: http://localhost",
            "proxy-authorization: Basic x",
            "connection: x-secret",
            "x-secret: 1",
        )
        got = await gateway.send(post(body, *hostile), wait_for=b"usage")
    assert b"200 OK" in got
    assert b"ak-of-the-replicas" not in got
    (seen,) = a.requests
    assert seen.body == body
    assert sorted(seen.headers) == [
        (b"authorization", b"Bearer ak-of-the-replicas"),
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"application/json"),
        (b"host", a.address.encode()),
        (b"x-argosy-caller", b"key-1"),
        (b"x-argosy-usage", b"1"),
        (b"x-request-id", b"my-id"),
    ]


async def test_d19_a_replica_that_refuses_our_key_is_a_fault_of_ours_not_the_clients(live, replicas) -> None:
    (a,) = await replicas("a")
    a.default = answer({"error": "who are you"}, 401)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        got = await gateway.chat()
    assert (got.status_code, got.json()["error"]["reason"]) == (502, "replica_error")


async def test_d15_every_route_needs_a_key(live, replicas) -> None:
    (a,) = await replicas("a")
    async with live(api_keys=("the-clients-key",)) as gateway:
        await gateway.publish(route(a.endpoint()))
        for each in gateway.gateway.routes:
            path = each.path.replace("{model:path}", "chat")
            method = "POST" if "POST" in each.methods and path != "/ping" else "GET"
            got = await gateway.client.request(method, path, json=None if method == "GET" else {"model": "chat"})
            is_probe = path in ("/livez", "/readyz", "/health", "/ping")
            assert (got.status_code == 401) != is_probe, path
        assert (await gateway.client.get("/v1/models?api_key=the-clients-key")).status_code == 401
        assert a.requests == []


async def test_models_are_all_services_and_their_adapters_sleeping_ones_too(live, replicas) -> None:
    async with live() as gateway:
        chat = route(service="chat")
        await gateway.publish(
            type(chat)(service="chat", names=("chat", "chat-fr"), created=7),
            type(chat)(service="code", names=("code",)),
        )
        listed = (await gateway.client.get("/v1/models")).json()
        one = await gateway.client.get("/v1/models/chat-fr")
        none = await gateway.client.get("/v1/models/nope")
    assert [(card["id"], card["root"], card["parent"]) for card in listed["data"]] == [
        ("chat", "chat", None),
        ("chat-fr", "chat", "chat"),
        ("code", "code", None),
    ]
    assert one.json()["created"] == 7
    assert none.status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"model":"chta"}', 404, "Did you mean 'chat'?"),
        (b'{"messages":[]}', 400, "name one of chat, code"),
        (b"{", 400, "not JSON"),
        (b'{"model":5}', 400, "$.model"),
        (b'{"x":' + b"[" * 60_000, 400, "nested too deeply"),
        (b'{"model":"\xff"}', 400, "not UTF-8"),
    ],
)
async def test_what_names_no_service_is_refused_here(live, replicas, body, status, says) -> None:
    (a,) = await replicas("a")
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()), route(a.endpoint(), service="code"))
        got = await gateway.client.post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
    assert got.status_code == status
    assert says in got.json()["message"]
    assert a.requests == []


async def test_what_else_is_wrong_with_a_body_the_replica_says(live, replicas) -> None:
    (a,) = await replicas("a")
    a.default = answer({"message": "Expected `array` - at `$.messages`"}, 400)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        got = await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": 5})
        assert gateway.service().counters("v1").errors == 0
    assert (got.status_code, got.json()) == (400, {"message": "Expected `array` - at `$.messages`"})


# --- failures


async def test_f03_a_request_that_was_not_begun_is_sent_elsewhere(live, replicas) -> None:
    a, b = await replicas("a", "b")
    await a.stop()
    async with live(draw=lambda: 0.0) as gateway:
        await gateway.publish(route(a.endpoint(), b.endpoint(), balancer="round_robin"))
        answers = [await gateway.chat() for _ in range(4)]
    assert [each.status_code for each in answers] == [200] * 4
    assert len(b.requests) == 4


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param(reset(b"H"), id="reset"),
        pytest.param(reset(b"HTTP/1.1 200 OK\r\ncontent-le"), id="half a head"),
        pytest.param(reset(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"), id="half a body"),
        pytest.param(reset(STREAM_HEAD), id="a stream without a piece"),
        pytest.param(raw(b"SSH-2.0-OpenSSH_9.6\r\n"), id="not HTTP"),
        pytest.param(answer(b"<html>"), id="not JSON"),
        pytest.param(answer({"choices": []}), id="no choice"),
        pytest.param(answer({"error": "dead"}, 503), id="engine dead"),
    ],
)
async def test_f03_f15_one_more_try_elsewhere_before_the_first_byte(live, replicas, failing) -> None:
    a, b = await replicas("a", "b")
    a.script = b.script = deque([failing])  # whichever is asked first
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), b.endpoint()))
        got = await gateway.chat(stream=True)
        counters = gateway.service().counters("v1")
        assert (got.status_code, gateway.service().retries, counters.errors) == (200, 1, 1)
    assert [len(a.requests), len(b.requests)] == [1, 1]


async def test_f03_a_request_that_kills_replicas_kills_two(live, replicas) -> None:
    several = await replicas("a", "b", "c", "d")
    for each in several:
        each.default = reset(b"HTTP/1.1 ")
    async with live() as gateway:
        await gateway.publish(route(*(each.endpoint() for each in several)))
        got = await gateway.chat()
    assert (got.status_code, got.json()["error"]["reason"]) == (502, "replica_error")
    assert sorted(len(each.requests) for each in several) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("events", "end"),
    [
        (EVENTS, b""),
        ((*EVENTS, "data: fo"), b""),
        (EVENTS, b"0\r\n\r\n"),
        ((*EVENTS, "data: four\n\n"), b"garbage\r\n"),
    ],
)
async def test_f03_a_stream_that_breaks_ends_in_one_error_event(live, replicas, events, end) -> None:
    a, b = await replicas("a", "b")
    a.default = b.default = stream(*events, end=end)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), b.endpoint()))
        got = await gateway.chat(stream=True)
        assert gateway.service().counters("v1").errors == 1
    whole = [event for event in events if event.endswith("\n\n")]
    assert got.text.startswith("".join(whole))
    last = got.text.removeprefix("".join(whole))
    assert last.startswith('data: {"error":{')
    assert last.count("data:") == 1
    assert '"reason":"replica_error"' in last
    assert len(a.requests) + len(b.requests) == 1


async def test_a_replicas_own_error_event_is_the_only_ending(live, replicas) -> None:
    (a,) = await replicas("a")
    own = 'data: {"error":{"message":"engine failed"}}\n\n'
    a.default = stream(*EVENTS, USAGE_COMMENT + own)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        got = await gateway.chat(stream=True)
        counters = gateway.service().counters("v1")
        assert (counters.errors, counters.slo_good) == (1, 0)
    assert got.text == "".join(EVENTS) + own


async def test_f07_a_full_replica_sends_requests_to_others_and_all_full_is_429(live, replicas) -> None:
    a, b = await replicas("a", "b")
    full = answer({"error": "queue full"}, 429, b"retry-after: 7")
    a.default, b.default = full, answer()
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), b.endpoint()))
        assert {(await gateway.chat()).status_code for _ in range(4)} == {200}
        b.default = full
        got = await gateway.chat()
    assert (got.status_code, got.headers["retry-after"]) == (429, "7")


async def test_f08_retries_stay_within_the_budget(live, replicas) -> None:
    several = await replicas("a", "b", "c", "d", "e")
    for each in several:
        each.default = reset(b"HTTP/1.1 ")
    async with live() as gateway:
        await gateway.publish(route(*(each.endpoint() for each in several), retry_ratio=0.1))
        for _ in range(150):
            await gateway.chat()
        sent = sum(len(each.requests) for each in several)
        assert gateway.service().retries == sent - 150
    assert sent <= 150 * 1.1 + 10 + 2  # the ratio, the reserve, and what seconds brought back


async def test_f08_a_replica_that_fails_is_left_out_and_let_in_again(live, replicas) -> None:
    a, b = await replicas("a", "b")
    a.default = answer({"error": "bad"}, 500)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), b.endpoint(), balancer="round_robin"))
        for _ in range(12):
            await gateway.chat()
        assert gateway.service().endpoints["a"].is_ejected
        seen = len(a.requests)
        assert {(await gateway.chat()).status_code for _ in range(10)} == {200}
        assert len(a.requests) == seen
        assert gateway.service().ejections == 1
        a.default = answer()
        gateway.service().endpoints["a"].health = EndpointHealth(phase=HealthPhase.EJECTED, ejections=1)
        await gateway.chat()
        await gateway.chat()
        assert not gateway.service().endpoints["a"].is_ejected


async def test_f08_a_replica_that_says_nothing_is_left_and_its_requests_go_elsewhere(
    live, replicas, monkeypatch
) -> None:
    monkeypatch.setattr("argosy.gateway.replica_polls.POLL_SECONDS", 0.05)
    monkeypatch.setattr("argosy.gateway.replica_polls.SILENCE_SECONDS", 0.1)
    a, b = await replicas("a", "b")
    a.default = a.state_behaviour = silence
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), b.endpoint(), balancer="round_robin"))
        answers = await asyncio.gather(*(gateway.chat() for _ in range(4)))
        assert {each.status_code for each in answers} == {200}
        await eventually(lambda: not gateway.service().endpoints["a"].is_reachable)
        a.state_behaviour = None
        await eventually(lambda: gateway.service().endpoints["a"].is_reachable)


async def test_a_stale_connection_is_no_failure(live, replicas) -> None:
    (a,) = await replicas("a")
    async with live(report_seconds=30) as gateway:
        await gateway.publish(route(a.endpoint()))
        await gateway.chat()
        a.script.append(reset())  # as if it had closed the kept-alive connection just as we wrote
        got = await gateway.chat()
        counters = gateway.service().counters("v1")
        assert (got.status_code, counters.errors, gateway.service().retries) == (200, 0, 0)


# --- waiting for a replica


async def test_f14_a_crowd_in_front_of_a_sleeping_service_wakes_it_once_and_is_served(live, replicas) -> None:
    (a,) = await replicas("a")
    async with live(report_seconds=30) as gateway:
        await gateway.publish(route())
        crowd = [asyncio.ensure_future(gateway.chat()) for _ in range(50)]
        await eventually(lambda: len(gateway.service().line) == 50)
        await eventually(lambda: gateway.link.reports)
        assert len(gateway.link.reports) == 1
        assert gateway.link.reports[0].services[0].held >= 1
        await gateway.publish(route(a.endpoint()))
        assert {(await each).status_code for each in crowd} == {200}
    assert len(a.requests) == 50


async def test_f14_held_requests_reach_a_new_replica_only_as_fast_as_it_takes_them(live, replicas) -> None:
    (a,) = await replicas("a")
    a.state = ReplicaReport(epoch="e", phase="ready", max_num_seqs=2)
    a.default = gated(answer())
    async with live() as gateway:
        await gateway.publish(route())
        crowd = [asyncio.ensure_future(gateway.chat()) for _ in range(30)]
        await eventually(lambda: len(gateway.service().line) == 30)
        await gateway.publish(route(a.endpoint()))
        await eventually(lambda: a.requests)
        assert gateway.service().endpoints["a"].in_flight <= 32
        a.go.set()
        assert {(await each).status_code for each in crowd} == {200}


async def test_f14_when_loading_fails_all_who_wait_get_the_reason(live, replicas) -> None:
    async with live() as gateway:
        await gateway.publish(route())
        crowd = [asyncio.ensure_future(gateway.chat()) for _ in range(5)]
        await eventually(lambda: len(gateway.service().line) == 5)
        await gateway.publish(route(failure="replica chat-v1-abcde fails again and again: no such file"))
        answers = [await each for each in crowd]
        late = await gateway.chat()
    for each in (*answers, late):
        assert (each.status_code, each.json()["error"]["reason"]) == (503, "unavailable")
        assert "no such file" in each.json()["message"]
        assert each.headers["retry-after"] == "5"


async def test_f07_the_line_is_bounded_in_length_and_time(live, replicas) -> None:
    async with live() as gateway:
        await gateway.publish(route(max_held=2, hold_seconds=0.2))
        crowd = [asyncio.ensure_future(gateway.chat()) for _ in range(5)]
        answers = [await each for each in crowd]
    assert sorted(each.status_code for each in answers) == [429, 429, 429, 503, 503]
    assert all("retry-after" in each.headers for each in answers)


async def test_a_held_request_whose_client_leaves_is_gone(live, replicas) -> None:
    async with live() as gateway:
        await gateway.publish(route())
        waiting = asyncio.ensure_future(gateway.chat())
        await eventually(lambda: len(gateway.service().line) == 1)
        waiting.cancel()
        await eventually(lambda: len(gateway.service().line) == 0)


async def test_f02_requests_wait_out_the_moment_in_which_no_replica_takes_any(live, replicas) -> None:
    (a,) = await replicas("a")
    leaving = answer({"error": "draining"}, 503, b"connection: close")
    a.default = leaving
    a.state = ReplicaReport(epoch="e", phase="draining")
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        waiting = asyncio.ensure_future(gateway.chat())
        await eventually(lambda: len(gateway.service().line) == 1)
        (b,) = await replicas("b")
        await gateway.publish(route(b.endpoint()))
        assert (await waiting).status_code == 200
        assert gateway.service().counters("v1").errors == 0


# --- clients


async def test_f06_64_clients_that_leave_mid_stream_leave_nothing_behind(live, replicas) -> None:
    (a,) = await replicas("a")
    a.default = stream(EVENTS[0], "data: never\n\n", wait_before=1)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        body = b'{"model":"chat","stream":true}'
        await asyncio.gather(*(gateway.send(post(body), wait_for=b"one") for _ in range(64)))
        await eventually(lambda: a.num_aborted == 64)
        state = gateway.service().endpoints["a"]
        await eventually(lambda: state.in_flight == 0)
        assert state.pending_prompt_tokens == 0
        assert gateway.gateway.lifecycle.in_flight == 0
        assert gateway.service().counters("v1").errors == 0
        assert state.health.failures == 0


async def test_f06_a_client_that_leaves_before_the_answer_ends_the_replicas_work(live, replicas) -> None:
    (a,) = await replicas("a")
    a.default = silence
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        waiting = asyncio.ensure_future(gateway.chat())
        await eventually(lambda: a.requests)
        waiting.cancel()
        await eventually(lambda: a.num_aborted == 1)


async def test_f06_a_slow_reader_holds_the_replica_up_not_our_memory_and_is_cut(live, replicas) -> None:
    (a,) = await replicas("a")
    a.default = flood
    async with live(limits={"stall_seconds": 0.3}) as gateway:
        await gateway.publish(route(a.endpoint()))
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
        writer.write(post(b'{"model":"chat","stream":true}'))
        await eventually(lambda: a.num_aborted == 1)
        await eventually(lambda: gateway.service().endpoints["a"].in_flight == 0)
        writer.close()


async def test_a_deadline_is_504_before_the_first_byte_and_an_event_after(live, replicas) -> None:
    (a,) = await replicas("a")
    a.script.append(silence)
    a.default = stream(EVENTS[0], "data: never\n\n", wait_before=1)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), deadline_seconds=0.2))
        before = await gateway.chat()
        after = await gateway.chat(stream=True)
        assert gateway.service().counters("v1").errors == 2
        await eventually(lambda: a.num_aborted == 2)
    assert (before.status_code, before.json()["error"]["reason"]) == (504, "deadline_exceeded")
    assert after.text.startswith(EVENTS[0] + 'data: {"error":{')
    assert after.text.count('"deadline_exceeded"') == 1


# --- revisions


async def test_a_revision_is_pinned_by_those_who_may(live, replicas, tmp_path) -> None:
    a, b = await replicas("a", "b")
    async with live() as gateway:
        two = route(a.endpoint("v1"), b.endpoint("v2"))
        weightless = tuple(
            RevisionRoute(revision=each.revision, weight=100 if each.revision == "v1" else 0, endpoints=each.endpoints)
            for each in two.revisions
        )
        await gateway.publish(type(two)(service="chat", names=("chat",), revisions=weightless))
        plain = [await gateway.chat() for _ in range(3)]
        pinned = await gateway.client.post(
            "/v1/chat/completions", json={"model": "chat"}, headers={"x-argosy-revision": "v2"}
        )
        unknown = await gateway.client.post(
            "/v1/chat/completions", json={"model": "chat"}, headers={"x-argosy-revision": "v9"}
        )
    assert {each.headers["x-argosy-revision"] for each in plain} == {"v1"}
    assert pinned.headers["x-argosy-revision"] == "v2"
    assert unknown.status_code == 404
    assert "runs no revision 'v9': it runs v1, v2" in unknown.json()["message"]


async def test_a_sticky_caller_meets_one_revision(live, replicas) -> None:
    a, b = await replicas("a", "b")
    async with live() as gateway:
        sticky = StickyPolicy(by=StickySource.USER)
        await gateway.publish(route(a.endpoint("v1"), b.endpoint("v2"), sticky=sticky))
        met = {
            user: {(await gateway.chat(user=user)).headers["x-argosy-revision"] for _ in range(5)}
            for user in ("ann", "ben", "cem", "dee", "eva", "fay")
        }
    assert all(len(revisions) == 1 for revisions in met.values())
    assert len(set.union(*met.values())) == 2


async def test_a_shadow_is_measured_and_never_seen(live, replicas) -> None:
    a, b = await replicas("a", "b")
    b.default = reset(b"H")
    async with live() as gateway:
        two = route(a.endpoint("v1"), b.endpoint("v2"), shadow=ShadowPolicy(revision="v2"))
        weightless = tuple(
            RevisionRoute(revision=each.revision, weight=100 if each.revision == "v1" else 0, endpoints=each.endpoints)
            for each in two.revisions
        )
        await gateway.publish(type(two)(service="chat", names=("chat",), revisions=weightless, policy=two.policy))
        answers = [await gateway.chat() for _ in range(3)]
        await eventually(lambda: len(b.requests) == 3)
        shadow = gateway.service().counters("v2", is_shadow=True)
        await eventually(lambda: shadow.errors == 3)
        assert gateway.service().counters("v1").requests == 3
        assert gateway.service().counters("v2").requests == 0
    assert {each.status_code for each in answers} == {200}
    assert {each.headers["x-argosy-revision"] for each in answers} == {"v1"}


# --- the control plane


async def test_not_ready_until_the_first_routes_came(live, replicas) -> None:
    async with live() as gateway:
        assert (await gateway.client.get("/readyz")).status_code == 503
        refused = await gateway.chat()
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        await gateway.publish()
        assert (await gateway.client.get("/readyz")).status_code == 200


async def test_f16_the_last_routes_stay_while_the_control_plane_is_away(live, replicas) -> None:
    (a,) = await replicas("a")
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        gateway.link.fails = BackendError("nobody there")
        gateway.link.publish(failure=BackendError("nobody there"))
        assert (await gateway.chat()).status_code == 200
        await eventually(lambda: gateway.gateway.reports.build().routes_stale_seconds > 0)
        gateway.link.fails = None
        await gateway.publish(route(a.endpoint(), service="chat"), route(a.endpoint(), service="code"))
        assert gateway.gateway.reports.build().routes_stale_seconds == 0
        assert (await gateway.client.get("/v1/models/code")).status_code == 200


async def test_f12_an_older_table_changes_nothing(live, replicas) -> None:
    (a,) = await replicas("a")
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        services, now = gateway.gateway.services, 0.0
        assert not services.update(type(services.table)(epoch="test", version=0), now)
        assert not services.update(services.table, now)
        assert (await gateway.chat()).status_code == 200
        assert services.update(type(services.table)(epoch="another run", version=0), now)


async def test_reports_count_what_happened(live, replicas) -> None:
    (a,) = await replicas("a")
    a.state = ReplicaReport(epoch="e", phase="ready", max_num_seqs=4, kv_cache_usage_ratio=0.25)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        await gateway.chat()
        a.default = answer({"error": "bad"}, 500)
        await gateway.chat()
        await eventually(
            lambda: gateway.link.reports and gateway.link.reports[-1].services[0].revisions[0].requests == 2
        )
        (service,) = gateway.link.reports[-1].services
        exposed = (await gateway.client.get("/metrics")).text
    (revision,) = service.revisions
    assert (service.arrivals, service.held, revision.errors, revision.completions) == (2, 0, 1, 2)
    assert (revision.slo_good, revision.in_flight, revision.prompt_tokens, revision.generation_tokens) == (1, 0, 5, 3)
    assert service.replicas[0].report == a.state
    assert 'argosy_gateway_requests_total{revision="v1",service="chat"} 2.0' in exposed
    assert 'argosy_gateway_key_tokens_total{key="anonymous",kind="generation",service="chat"} 3.0' in exposed


async def test_f01_a_drain_lets_streams_end_and_an_abort_gives_them_one_last_event(live, replicas) -> None:
    (a,) = await replicas("a")
    a.default = stream(EVENTS[0], "data: never\n\n", wait_before=1)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        open_stream = asyncio.ensure_future(gateway.chat(stream=True))
        await eventually(lambda: gateway.service().counters("v1").started == 1)
        gateway.gateway.lifecycle.drain()
        assert (await gateway.client.get("/readyz")).status_code == 503
        refused = await gateway.chat()
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        gateway.gateway.abort_all(BackendError("the gateway is stopping"))
        got = await open_stream
        await eventually(lambda: gateway.gateway.lifecycle.phase is Phase.DRAINING)
    assert got.text.startswith(EVENTS[0] + 'data: {"error":{"message":"the gateway is stopping"')


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n\r\n{}{}{}",
        b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_d24_what_two_parsers_could_read_differently_reaches_no_replica(live, replicas, head) -> None:
    (a,) = await replicas("a")
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        got = await gateway.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n" + head)
    assert got.startswith(b"HTTP/1.1 400 ")
    assert a.requests == []


async def test_d24_a_second_answer_from_a_replica_reaches_nobody(live, replicas) -> None:
    (a,) = await replicas("a")
    body = b'{"choices":[1],"who":"%s"}'
    first, second = body % b"first", body % b"other"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    a.script.append(raw(head % len(first) + first + head % len(second) + second, then_close=False))
    async with live(report_seconds=30) as gateway:
        await gateway.publish(route(a.endpoint()))
        assert (await gateway.chat()).json()["who"] == "first"
        assert (await gateway.chat()).json() == ANSWER


async def test_f01_routes_that_come_during_a_drain_do_not_open_the_door_again(live, replicas) -> None:
    (a,) = await replicas("a")
    async with live() as gateway:
        await gateway.publish(route(a.endpoint()))
        lifecycle = gateway.gateway.lifecycle
        lifecycle.drain()
        dead = asyncio.ensure_future(lifecycle.wait_dead())  # as a drain waits
        await asyncio.sleep(0)
        await gateway.publish(route(a.endpoint(), max_held=7))
        refused, probe = await gateway.chat(), await gateway.client.get("/readyz")
        dead.cancel()
        await asyncio.wait([dead])
    assert (refused.status_code, probe.status_code) == (503, 503)


async def test_f01_an_abort_passes_over_what_its_deadline_is_ending(live, replicas) -> None:
    (a,) = await replicas("a")
    a.default = flood
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), deadline_seconds=0.3))
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
        writer.write(post(b'{"model":"chat","stream":true}'))
        counters = gateway.service().counters("v1")
        await eventually(lambda: counters.errors == 1)
        gateway.gateway.abort_all(BackendError("the gateway is stopping"))
        writer.transport.abort()
        await eventually(lambda: gateway.gateway.lifecycle.in_flight == 0)


async def test_the_model_without_a_name_is_the_only_one_there_is(live, replicas) -> None:
    async with live() as gateway:
        await gateway.publish(route(service="chat"))
        only = await gateway.client.get("/v1/models/")
        await gateway.publish(route(service="chat"), route(service="code"))
        several = await gateway.client.get("/v1/models/")
    assert (only.status_code, only.json()["id"]) == (200, "chat")
    assert several.status_code == 400


async def test_a_browser_gets_the_chat_page_and_is_asked_for_the_key(live, replicas) -> None:
    async with live() as gateway:
        got = await gateway.client.get("/")
        script = await gateway.client.get("/assets/app.js")
    assert (got.status_code, got.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in got.headers["content-security-policy"]
    assert script.status_code == 200
    async with live(api_keys=("sesame-open",)) as gateway:
        refused = await gateway.client.get("/")
        entered = await gateway.client.get("/", auth=("anyone", "sesame-open"))
        api = await gateway.client.get("/v1/models")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert entered.text == got.text
    assert api.headers["www-authenticate"] == "Bearer"
