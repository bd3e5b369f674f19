"""Who may speak to the control plane: it starts programs, so nobody does without its key."""

from __future__ import annotations

import pytest
from live_control import live_control

from argosy.api.app import build_api
from argosy.core.control_spec import ControlSpec
from argosy.core.errors import SpecError
from argosy.core.inference_service import InferenceService
from argosy.observe.metrics import Metrics
from argosy.web.lifecycle import Lifecycle
from argosy.web.paths import PROBES

pytestmark = pytest.mark.anyio

CHAT = {"metadata": {"name": "chat"}, "spec": {"template": {"model": "smollm2"}}}


async def test_d15_every_route_of_the_table_is_closed_without_a_key(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http(None) as http:
        seen = set()
        for route in control.app.routes:
            for method in route.methods:
                path = route.path.replace("{name}", "chat").replace("{name:path}", "x.js")
                answer = await http.request(method, path)
                assert answer.status_code == (200 if route.path in PROBES else 401), (method, path)
                seen.add((method, route.path))
        assert len(seen) > 20
        for path in ("/no/such/route", "/health/", "//health", "/v1/inferenceservices/", "/assets/../v1/top"):
            assert (await http.get(path)).status_code == 401, path


@pytest.mark.parametrize("scope", ["infer", "metrics"])
async def test_d15_only_the_admin_scope_opens_it(tmp_path, scope) -> None:
    async with live_control(tmp_path) as control, control.http(scope) as http:
        for route in control.app.routes:
            for method in route.methods:
                path = route.path.replace("{name}", "chat")
                answer = await http.request(method, path)
                is_open = route.path in PROBES or (scope == "metrics" and route.path in ("/metrics", "/load"))
                assert (answer.status_code != 403) == is_open, (method, path)


async def test_d16_without_a_key_it_is_not_built(tmp_path) -> None:
    async with live_control(tmp_path) as control:
        with pytest.raises(SpecError, match="needs a key"):
            build_api(ControlSpec(), control.plane, Metrics(), Lifecycle("starting"))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"host": "evil.example"},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
    ],
)
async def test_d17_a_page_from_elsewhere_cannot_declare_or_delete(tmp_path, headers) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        await http.put("/v1/inferenceservices/chat", json=CHAT)
        other = {"metadata": {"name": "evil"}, "spec": {"template": {"model": "m"}}}
        put = await http.request(
            "PUT",
            "/v1/inferenceservices/evil",
            content=b"{}" if "content-type" in headers else None,
            json=None if "content-type" in headers else other,
            headers=headers,
        )
        assert put.status_code in (400, 403)
        if "content-type" not in headers:
            assert (await http.delete("/v1/inferenceservices/chat", headers=headers)).status_code == 403
        assert [each.metadata.name for each in await control.store.list(InferenceService)] == ["chat"]


async def test_d17_answers_carry_the_strict_policy(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        for path in ("/v1/top", "/v1/inferenceservices", "/v1/events"):
            headers = (await http.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "access-control-allow-origin" not in headers


async def test_d25_a_body_beyond_the_limit_is_refused(tmp_path) -> None:
    async with live_control(tmp_path, limits={"max_body_bytes": 10_000}) as control, control.http() as http:
        big = {**CHAT, "metadata": {"name": "chat", "labels": {"text": "x" * 20_000}}}
        answer = await http.put("/v1/inferenceservices/chat", json=big)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (413, "payload_too_large")


async def test_while_it_starts_or_ends_it_says_so(tmp_path) -> None:
    async with live_control(tmp_path) as control, control.http() as http:
        control.lifecycle.drain()
        answer = await http.get("/v1/inferenceservices")
        assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "draining")
        assert (await http.get("/metrics")).status_code == 200
        control.lifecycle.ready()
