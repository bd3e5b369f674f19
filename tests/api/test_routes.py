"""What each route of the control plane takes and gives, over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from live_control import LiveControl, live_control, service

from argosy.core.control_api import EventList, ReplicaList, RevisionList, ServiceList
from argosy.core.inference_service import InferenceService, ServicePhase
from argosy.core.load_report import GatewayReport, ServiceTraffic
from argosy.core.routing import RouteTable
from argosy.core.service_views import Plan, Top, Why
from argosy.observe.exposition import Scrape, read
from argosy.web.operation import operation_of
from argosy.web.paths import PROBES

pytestmark = pytest.mark.anyio

CHAT = {"metadata": {"name": "chat"}, "spec": {"template": {"model": "smollm2"}}}
ONE = "/v1/inferenceservices/chat"


async def ready(control: LiveControl, name: str = "chat") -> InferenceService:
    """The service, once its replicas answer."""
    async with asyncio.timeout(5), control.http() as http:
        while True:
            found = msgspec.json.decode(
                (await http.get(f"/v1/inferenceservices/{name}")).content, type=InferenceService
            )
            if found.status.phase is ServicePhase.READY:
                return found
            await asyncio.sleep(0.01)


async def test_a_service_from_its_declaration_to_its_end(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        assert (await http.get("/v1/inferenceservices")).json() == {"items": []}
        put = await http.put(ONE, json=CHAT)
        assert put.status_code == 200
        declared = msgspec.json.decode(put.content, type=InferenceService)
        assert (declared.metadata.generation, declared.status.phase) == (1, ServicePhase.PENDING)
        seen = await ready(control)
        assert seen.spec == declared.spec
        listed = msgspec.json.decode((await http.get("/v1/inferenceservices")).content, type=ServiceList)
        assert [each.metadata.name for each in listed.items] == ["chat"]
        revisions = msgspec.json.decode((await http.get(f"{ONE}/revisions")).content, type=RevisionList)
        assert [each.short_name for each in revisions.items] == ["v1"]
        replicas = msgspec.json.decode((await http.get("/v1/replicas?service=chat")).content, type=ReplicaList)
        assert [(each.service, each.revision, each.status.phase) for each in replicas.items] == [
            ("chat", "v1", "ready")
        ]
        why = msgspec.json.decode((await http.get(f"{ONE}/why")).content, type=Why)
        assert "chat is ready" in why.answer
        top = msgspec.json.decode((await http.get("/v1/top")).content, type=Top)
        assert [each.service for each in top.services] == ["chat"]
        events = msgspec.json.decode((await http.get("/v1/events?service=chat")).content, type=EventList)
        assert events.items
        assert list(events.items) == sorted(events.items, key=lambda each: each.last_at)
        assert (await http.get("/v1/events?service=other")).json() == {"items": []}
        table = msgspec.json.decode((await http.get("/v1/routes")).content, type=RouteTable)
        assert [endpoint.replica for endpoint in table.services[0].revisions[0].endpoints] == [
            replicas.items[0].status.name
        ]
        log = await http.get(f"{ONE}/logs")
        assert log.headers["content-type"] == "text/plain; charset=utf-8"
        assert "serve smollm2" in log.text.splitlines()[0]
        assert (await http.delete(ONE)).json() == {}
        assert (await http.get(ONE)).status_code == 404
        async with asyncio.timeout(5):
            while await control.backend.list():  # noqa: ASYNC110  # the fake has no event for one reader more
                await asyncio.sleep(0.01)


async def test_metrics_hold_the_control_plane_and_its_gateways(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        await http.put(ONE, json=CHAT)
        report = GatewayReport(epoch="e1", routes_version=3, services=(ServiceTraffic(service="chat", arrivals=7),))
        sent = await http.post(
            "/v1/gateways/g1/report", content=msgspec.json.encode(report), headers={"content-type": "application/json"}
        )
        assert sent.json() == {}
        await ready(control)
        answer = await http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        read(Scrape(text=answer.text, labels={}))
        assert 'argosy_control_service_phase{phase="ready",service="chat"} 1.0' in answer.text
        assert any(
            line.startswith("argosy_gateway_arrivals_total{") and 'gateway="g1"' in line and line.endswith(" 7.0")
            for line in answer.text.splitlines()
        )


async def test_every_documented_operation_answers_as_its_document_says(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http(timeout=10) as http:
        document = (await http.get("/openapi.json")).json()
        await http.put(ONE, json=CHAT)
        await ready(control)
        called = 0
        for route in sorted(control.app.routes, key=lambda each: "DELETE" in each.methods):
            operation = operation_of(route)
            if operation is None:
                assert route.path == "/" or route.path.startswith("/assets/"), f"{route.path} is not described"
                continue
            method = next(iter(route.methods - {"HEAD"}))
            path = route.path.replace("{name}", "chat")
            described = document["paths"][route.path][method.lower()]
            answer = await http.request(method, path, json=operation.example)
            assert answer.status_code == 200, (method, path, answer.text)
            content = described["responses"]["200"].get("content", {})
            if operation.response is not None:
                assert "application/json" in content
                msgspec.json.decode(answer.content, type=operation.response)
            elif operation.is_text:
                assert [*content] == ["text/plain"]
                assert answer.headers["content-type"].startswith("text/plain")
            called += 1
        assert called >= 20
        assert {each["name"] for each in document["paths"]["/v1/events"]["get"]["parameters"]} == {"service", "watch"}


async def test_a_plan_says_what_would_change_and_changes_nothing(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        fresh = msgspec.json.decode((await http.post(f"{ONE}/plan", json=CHAT)).content, type=Plan)
        assert fresh.changes == (
            "chat would be made, with 'smollm2' as its model",
            "revision v1 would be made",
        )
        assert fresh.service.metadata.generation == 1
        (rendered,) = fresh.rendered
        assert "serve" in rendered
        assert "smollm2" in rendered
        assert await control.store.list(InferenceService) == []
        assert "chat" not in control.loop.world.memories
        await http.put(ONE, json=CHAT)
        stored = await ready(control)
        (applied,) = [control.backend.render(each) for each in control.backend._workloads.values()]
        assert applied == rendered
        same = msgspec.json.decode((await http.post(f"{ONE}/plan", json=CHAT)).content, type=Plan)
        assert (same.changes, same.rendered) == ((), (rendered,))
        assert same.service.metadata == stored.metadata
        other = {**CHAT, "spec": {"template": {"model": "other"}, "warm_spares": 1}}
        changed = msgspec.json.decode((await http.post(f"{ONE}/plan", json=other)).content, type=Plan)
        assert changed.changes == (
            'spec.template.model would change from "smollm2" to "other"',
            "spec.warm_spares would change from 0 to 1",
            "revision v2 would be made",
        )
        assert changed.service.metadata.generation == 2
        assert any("other" in each for each in changed.rendered)
        assert (await http.get(ONE)).json()["metadata"]["generation"] == 1
        refused = await http.post(f"{ONE}/plan", json={**CHAT, "spec": {"template": {"model": ""}}})
        assert refused.status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "reason", "said"),
    [
        (b"{", 400, "invalid_request", "no JSON"),
        (b"[" * 100_000, 422, "spec_error", "Expected `object`"),
        (b"[]", 422, "spec_error", "Expected `object`"),
        (b'{"metadata":{"name":"chat"},"spec":{"template":{}}}', 422, "spec_error", "$.spec.template"),
        (
            b'{"metadata":{"name":"chat"},"spec":{"template":{"model":"m"},"min_replica":1}}',
            422,
            "spec_error",
            "unknown field `min_replica` - at `$.spec`",
        ),
        (
            b'{"metadata":{"name":"chat"},"spec":{"template":{"model":"m"},"scaling":{"min_replicas":"2"}}}',
            422,
            "spec_error",
            "$.spec.scaling.min_replicas",
        ),
        (b'{"metadata":{"name":"other"},"spec":{"template":{"model":"m"}}}', 422, "spec_error", "$.metadata.name"),
        (
            b'{"metadata":{"name":"chat"},"spec":{"template":{"model":"m"},"traffic":{"v1":100}}}',
            422,
            "spec_error",
            "there is no revision",
        ),
        (
            b'{"metadata":{"name":"chat","resource_version":7},"spec":{"template":{"model":"m"}}}',
            409,
            "conflict",
            "deleted meanwhile",
        ),
    ],
)
async def test_what_is_wrong_with_a_declaration_is_said_with_its_place(tmp_path, body, status, reason, said) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        answer = await http.put(ONE, content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason), answer.text
        assert said in answer.json()["error"]["message"]
        assert await control.store.list(InferenceService) == []


async def test_only_a_change_of_the_spec_by_somebody_else_is_a_conflict(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        declared = (await http.put(ONE, json=CHAT)).json()
        await ready(control)  # the loop has written the status meanwhile
        mine: dict[str, Any] = {**declared, "spec": {**declared["spec"], "warm_spares": 1}}
        changed = await http.put(ONE, json=mine)
        assert (changed.status_code, changed.json()["metadata"]["generation"]) == (200, 2)
        late = await http.put(ONE, json={**mine, "spec": {**declared["spec"], "warm_spares": 2}})
        assert (late.status_code, late.json()["error"]["reason"]) == (409, "conflict")
        without_version = await http.put(ONE, json={**CHAT, "spec": {**CHAT["spec"], "warm_spares": 3}})
        assert without_version.json()["spec"]["warm_spares"] == 3
        assert without_version.json()["metadata"]["uid"] == declared["metadata"]["uid"]


async def test_a_status_that_is_sent_is_ignored(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        forged = await http.put(ONE, json={**CHAT, "status": {"phase": "failed", "ready_replicas": 99}})
        assert forged.json()["status"]["ready_replicas"] == 0


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/inferenceservices?wach=true", "'wach' is not known here"),
        ("/v1/inferenceservices?watch=yes", "write true or false"),
        ("/v1/inferenceservices?watch=true&watch=false", "came twice"),
        ("/v1/inferenceservices/chat?dry_run=true", "'dry_run' is not known"),
        ("/v1/events?service=../x", "not a valid name"),
        ("/v1/inferenceservices/chat/logs?replica=a%00b", "not a valid name"),
    ],
)
async def test_a_parameter_that_would_not_be_honoured_is_refused(tmp_path, path, said) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        answer = await http.get(path)
        assert answer.status_code == 400
        assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e%2fx", "a%00b", "a%2fb", "x" * 97, "-x", "%F0%9F%98%80", "'%20OR%20''='", "a b"]
)
@pytest.mark.parametrize("tail", ["", "/why", "/logs", "/revisions"])
async def test_d06_no_name_leaves_its_place(tmp_path, name, tail) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        answer = await http.get(f"/v1/inferenceservices/{name}{tail}")
        assert answer.status_code in (400, 404)
        assert answer.json()["error"]["reason"] in ("invalid_request", "not_found")


async def test_d20_no_filter_is_code(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        await http.put(ONE, json=CHAT)
        await ready(control)
        for hostile in ("chat' OR '1'='1", "%", "*", ".*", 'chat" UNION SELECT 1', "chat--"):
            answer = await http.get("/v1/events", params={"service": hostile})
            assert answer.status_code == 400 or answer.json() == {"items": []}


async def test_logs_of_several_replicas_are_told_apart(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        two = {**CHAT, "spec": {**CHAT["spec"], "scaling": {"min_replicas": 2, "max_replicas": 2}}}
        await http.put(ONE, json=two)
        await ready(control)
        (status,) = await control.backend.list()
        names = [each.name for each in status.replicas]
        lines = (await http.get(f"{ONE}/logs")).text.splitlines()
        assert [line.partition(" | ")[0] for line in lines] == [name for name in names for _ in range(2)]
        only = (await http.get(f"{ONE}/logs", params={"replica": names[1]})).text.splitlines()
        assert [f"{names[1]} | {line}" for line in only] == lines[2:]
        assert (await http.get(f"{ONE}/logs?revision=v1")).text.splitlines() == lines
        absent = await http.get(f"{ONE}/logs?revision=v9")
        assert absent.status_code == 404
        assert "has no replica of v9 now" in absent.json()["error"]["message"]


async def test_logs_begin_with_those_of_the_replica_that_failed(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        two = {**CHAT, "spec": {**CHAT["spec"], "scaling": {"min_replicas": 2, "max_replicas": 2}}}
        await http.put(ONE, json=two)
        await ready(control)
        (status,) = await control.backend.list()
        last = status.replicas[-1].name
        control.backend.crash(status.name, last)
        await control.until(lambda: any(each.status.restarts for each in control.loop.outlook.replicas("chat")))
        lines = (await http.get(f"{ONE}/logs")).text.splitlines()
        assert lines[0].startswith(f"{last} | ")


async def test_of_gateways_only_so_many_may_report(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        for number in range(64):
            assert (await http.post(f"/v1/gateways/g{number}/report", json={"epoch": "e"})).status_code == 200
        refused = await http.post("/v1/gateways/one-more/report", json={"epoch": "e"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
        assert (await http.post("/v1/gateways/g0/report", json={"epoch": "e"})).status_code == 200


async def test_before_the_replicas_were_seen_there_are_no_routes(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        fresh = type(control.loop)(control.store, control.backend, control.loop.settings)
        control.plane.loop = fresh
        answer = await http.get("/v1/routes")
        assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "unavailable")


async def test_another_method_is_told_which_there_are(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        for path, methods in ((ONE, "DELETE, GET, HEAD, PUT"), (f"{ONE}/plan", "POST"), ("/v1/top", "GET, HEAD")):
            answer = await http.patch(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, methods)


async def test_probes_and_the_service_list_of_a_thousand(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http(None) as anyone, control.http() as http:
        assert {path: (await anyone.get(path)).status_code for path in PROBES} == dict.fromkeys(PROBES, 200)
        for number in range(100):
            await control.store.put(service(f"s{number:03}"))
        listed = msgspec.json.decode((await http.get("/v1/inferenceservices")).content, type=ServiceList)
        assert [each.metadata.name for each in listed.items] == [f"s{number:03}" for number in range(100)]
