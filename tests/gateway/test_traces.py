"""A gateway's spans, as a collector gets them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from scripted import DONE, USAGE_COMMENT, answer, eventually, gated, reset, route, stream

from argosy.core.errors import SpecError
from argosy.core.inference_service import ShadowPolicy
from argosy.observe.tracing import open_tracing

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "observe"))
from otlp_sink import Sink, collecting

pytestmark = pytest.mark.anyio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLERS = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with collecting() as opened:
        yield opened


async def spans_of(sink: Sink, count: int):
    return await asyncio.to_thread(sink.wait, count)


async def test_a_stream_is_a_span_and_its_replica_gets_it_as_parent(live, replicas, sink) -> None:
    (a,) = await replicas("chat-v1-aaaaa")
    a.default = stream("data: one\n\n", USAGE_COMMENT + DONE)
    async with live(otlp_endpoint=sink.url) as gateway:
        await gateway.publish(route(a.endpoint()))
        body = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "a secret"}]}
        got = await gateway.client.post("/v1/chat/completions", json=body, headers={"traceparent": CALLERS})
        assert got.status_code == 200
        (span,) = await spans_of(sink, 1)
    assert sink.paths == {"/v1/traces"}
    assert (span.role, span.name) == ("argosy-gateway", "chat chat")
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert a.requests[0].header(b"traceparent") == f"00-{TRACE}-{span.span_id}-01".encode()
    assert got.headers["traceparent"] == f"00-{TRACE}-{span.span_id}-01"
    assert span.facts == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "argosy.request_id": got.headers["x-request-id"],
        "argosy.service": "chat",
        "argosy.revision": "v1",
        "argosy.replica": "chat-v1-aaaaa",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "argosy",
        "gen_ai.request.model": "chat",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 3,
    }
    assert span.events == [("first_token", {})]
    assert "secret" not in repr(span)


async def test_a_retry_is_an_event_with_its_reason(live, replicas, sink) -> None:
    a, b = await replicas("a", "b")
    a.default = reset()
    b.default = answer()
    async with live(otlp_endpoint=sink.url) as gateway:
        await gateway.publish(route(a.endpoint(), b.endpoint(), balancer="round_robin"))
        for _ in range(2):
            assert (await gateway.chat()).status_code == 200
        spans = await spans_of(sink, 2)
    retried = next(span for span in spans if span.events)
    assert retried.events == [("replica_failed", {"replica": "a", "reason": "reset"}), ("retry", {"replica": "b"})]
    assert retried.facts["argosy.replica"] == "b"
    assert not any(span.is_error for span in spans)
    assert len({span.trace_id for span in spans}) == 2


async def test_a_failure_is_an_error_and_strangers_leave_no_span(live, replicas, sink) -> None:
    (a,) = await replicas("a")
    a.default = reset()
    async with live(otlp_endpoint=sink.url, api_keys=("sesame-open",)) as gateway:
        await gateway.publish(route(a.endpoint()))
        assert (await gateway.chat()).status_code == 401
        gateway.client.headers["authorization"] = "Bearer sesame-open"
        await gateway.client.get("/livez")
        assert (await gateway.chat()).status_code == 502
        (span,) = await spans_of(sink, 1)
    assert span.is_error
    assert span.facts["error.type"] == "502"


async def test_a_callers_trace_that_is_not_sampled_is_passed_on_and_not_sent(live, replicas, sink) -> None:
    (a,) = await replicas("a")
    async with live(otlp_endpoint=sink.url) as gateway:
        await gateway.publish(route(a.endpoint()))
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": []}, headers=headers)
        await gateway.chat()
        (span,) = await spans_of(sink, 1)
    assert span.trace_id != TRACE
    passed_on = a.requests[0].header(b"traceparent")
    assert passed_on is not None
    assert passed_on.decode().split("-")[1] == TRACE
    assert passed_on.endswith(b"-00")


async def test_a_collector_that_is_away_costs_requests_nothing(live, replicas) -> None:
    (a,) = await replicas("a")
    async with live(otlp_endpoint="http://127.0.0.1:9") as gateway:
        await gateway.publish(route(a.endpoint()))
        async with asyncio.timeout(2):
            assert [(await gateway.chat()).status_code for _ in range(20)] == [200] * 20


def test_off_imports_nothing_of_it() -> None:
    script = (
        "import sys; import argosy.gateway.app, argosy.server.app, argosy.api.app; "
        "from argosy.observe.tracing import open_tracing; assert open_tracing(None, 'gateway') is None; "
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(SpecError, match="is no URL"):
        open_tracing("localhost:4318", "gateway")


async def test_a_copy_writes_nothing_into_its_clients_span(live, replicas, sink) -> None:
    a, b = await replicas("a", "b")
    b.default = stream("data: one\n\n", USAGE_COMMENT + DONE)
    shadowed = route(a.endpoint("v1"), b.endpoint("v2"), shadow=ShadowPolicy(revision="v2", percent=100))
    weights = {"v1": 100, "v2": 0}
    revisions = [msgspec.structs.replace(each, weight=weights[each.revision]) for each in shadowed.revisions]
    a.default = gated(stream("data: one\n\n", USAGE_COMMENT + DONE))
    async with live(otlp_endpoint=sink.url) as gateway:
        await gateway.publish(msgspec.structs.replace(shadowed, revisions=tuple(revisions)))
        body = {"model": "chat", "stream": True, "messages": []}
        asked = asyncio.ensure_future(gateway.client.post("/v1/chat/completions", json=body))
        counters = gateway.service().counters("v2", is_shadow=True)
        await eventually(lambda: counters.completions == 1)
        a.go.set()
        assert (await asked).status_code == 200
        (span,) = await spans_of(sink, 1)
    assert [name for name, _ in span.events].count("first_token") == 1
