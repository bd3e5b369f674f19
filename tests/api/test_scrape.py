"""One scrape of everything: what a replica cannot spoil, and what the control plane says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from argosy.api import scrape
from argosy.api.loop_metrics import LoopMetrics, show_world
from argosy.api.scrape import MAX_REPLICA_BYTES, MergedMetrics
from argosy.control.settings import ControlSettings
from argosy.control.world import World
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceSpec,
    InferenceServiceStatus,
    RevisionStatus,
    RevisionTemplate,
    ServicePhase,
)
from argosy.core.load_report import GatewayReport, RevisionTraffic, ServiceTraffic
from argosy.core.metadata import Metadata
from argosy.core.workload import REVISION_LABEL, SERVICE_LABEL, ReplicaPhase, ReplicaStatus, WorkloadStatus
from argosy.observe.metrics import Metrics

pytestmark = pytest.mark.anyio

GOOD = "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 2\n"


def replica(name: str, port: int, phase: ReplicaPhase = ReplicaPhase.READY) -> ReplicaStatus:
    return ReplicaStatus(
        name=name, phase=phase, address=f"127.0.0.1:{port}", restarts=2, started_at=10.0, ready_at=12.5
    )


def world_of(*replicas: ReplicaStatus) -> World:
    world = World(ControlSettings())
    status = InferenceServiceStatus(
        phase=ServicePhase.DEGRADED,
        desired_replicas=3,
        ready_replicas=2,
        revisions=(RevisionStatus(revision="v1", desired_replicas=3, ready_replicas=2, weight=90),),
    )
    spec = InferenceServiceSpec(template=RevisionTemplate(model="smollm2"))
    world.services["chat"] = InferenceService(metadata=Metadata(name="chat"), spec=spec, status=status)
    labels = {SERVICE_LABEL: "chat", REVISION_LABEL: "v1"}
    world.statuses["chat"] = (WorkloadStatus(name="chat-v1", labels=labels, desired_replicas=3, replicas=replicas),)
    return world


def merged(world: World, answer: Callable[[httpx.Request], httpx.Response], *, key: str | None = None) -> MergedMetrics:
    metrics = Metrics()
    show_world(metrics, world, lambda: 100.0)
    return MergedMetrics(metrics, world, lambda: 100.0, replica_key=key, transport=httpx.MockTransport(answer))


async def read(source: MergedMetrics) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families((await source.expose()).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def up(found: dict[str, dict[frozenset[tuple[str, str]], float]]) -> dict[str, float]:
    return {dict(key)["replica"] or dict(key)["gateway"]: value for key, value in found["argosy_scrape_up"].items()}


def refuses(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    "bad",
    [
        refuses,
        lambda _: httpx.Response(503, text=GOOD),
        lambda _: httpx.Response(200, text="<html>"),
        lambda _: httpx.Response(200, content=b"\xff\xfe"),
        lambda _: httpx.Response(200, text="# " + "x" * MAX_REPLICA_BYTES),
        lambda _: httpx.Response(302, headers={"location": "http://169.254.169.254/"}),
    ],
    ids=["refused", "503", "html", "not text", "too large", "redirect"],
)
async def test_one_replica_that_fails_is_shown_and_the_others_stay(
    bad: Callable[[httpx.Request], httpx.Response],
) -> None:
    world = world_of(replica("chat-v1-aaaaa", 1), replica("chat-v1-bbbbb", 2))

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "127.0.0.1"
        return bad(request) if request.url.port == 1 else httpx.Response(200, text=GOOD)

    found = await read(merged(world, answer))
    assert up(found) == {"chat-v1-aaaaa": 0, "chat-v1-bbbbb": 1}
    assert [dict(key) for key in found["vllm:num_requests_waiting"]] == [
        {"service": "chat", "revision": "v1", "replica": "chat-v1-bbbbb"}
    ]


async def test_only_ready_replicas_are_asked_with_their_key() -> None:
    asked: list[tuple[int | None, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.port, request.headers["authorization"]))
        return httpx.Response(200, text=GOOD)

    world = world_of(replica("chat-v1-aaaaa", 1), replica("chat-v1-bbbbb", 2, ReplicaPhase.DRAINING))
    await merged(world, answer, key="sesame").expose()
    assert asked == [(1, "Bearer sesame")]


async def test_a_replica_that_is_gone_leaves_no_series() -> None:
    world = world_of(replica("chat-v1-aaaaa", 1))
    source = merged(world, lambda _: httpx.Response(200, text=GOOD))
    assert up(await read(source)) == {"chat-v1-aaaaa": 1}
    world.statuses.clear()
    found = await read(source)
    assert "argosy_scrape_up" not in found
    assert "vllm:num_requests_waiting" not in found


async def test_a_replica_that_never_answers_does_not_hold_up_the_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "REPLICA_TIMEOUT_SECONDS", 0.01)

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.port == 1:
            await asyncio.Event().wait()
        return httpx.Response(200, text=GOOD)

    world = world_of(replica("chat-v1-aaaaa", 1), replica("chat-v1-bbbbb", 2))
    source = MergedMetrics(Metrics(), world, lambda: 100.0, transport=httpx.MockTransport(answer))
    assert up(await read(source)) == {"chat-v1-aaaaa": 0, "chat-v1-bbbbb": 1}


async def test_gateways_and_the_control_plane_stand_beside_the_replicas() -> None:
    world = world_of(replica("chat-v1-aaaaa", 1))
    for name, requests in (("left", 5), ("right", 7)):
        traffic = ServiceTraffic(service="chat", revisions=(RevisionTraffic(revision="v1", requests=requests),))
        world.ledger.record(name, GatewayReport(epoch=name, services=(traffic,)), 100.0)
    metrics = Metrics()
    show_world(metrics, world, lambda: 100.0)
    observer = LoopMetrics(metrics)
    observer.looked(0.002, 99.0)
    observer.failed("StoreFailed")
    observer.told("chat", "ScaledUp")
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=GOOD))
    found = await read(MergedMetrics(metrics, world, lambda: 100.0, transport=transport))
    by_gateway = {dict(key)["gateway"]: value for key, value in found["argosy_gateway_requests_total"].items()}
    assert by_gateway == {"left": 5, "right": 7}
    v1 = {("service", "chat"), ("revision", "v1")}
    assert found["argosy_control_service_phase"] == {frozenset({("service", "chat"), ("phase", "degraded")}): 1}
    assert found["argosy_control_revision_weight_ratio"] == {frozenset(v1): 0.9}
    assert found["argosy_control_replicas"] == {frozenset(v1 | {("phase", "ready")}): 1}
    assert found["argosy_control_replica_restarts"] == {frozenset(v1): 2}
    assert found["argosy_control_replica_start_seconds"] == {frozenset(v1): 2.5}
    assert found["argosy_control_events_total"] == {frozenset({("service", "chat"), ("reason", "ScaledUp")}): 1}
    assert found["argosy_control_reconcile_errors_total"] == {frozenset({("reason", "StoreFailed")}): 1}
    assert found["argosy_control_reconcile_seconds_count"] == {frozenset(): 1}
    assert found["argosy_control_gateways"] == {frozenset(): 2}
