"""What every response carries, what is counted, and what is never logged."""

from __future__ import annotations

import io
import logging
import re

import httpx
import pytest
from starlette.testclient import TestClient

from argosy.core.serve_spec import ServeSpec
from argosy.observe.logs import JsonFormatter
from argosy.observe.metrics import Metrics
from argosy.server.app import build_app
from argosy.server.replica import Replica
from argosy.web.lifecycle import Phase

pytestmark = pytest.mark.anyio


async def test_probes_tell_the_phases_apart(live) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        expected = {
            Phase.STARTING: (200, 503, 503),
            Phase.READY: (200, 200, 200),
            Phase.DRAINING: (200, 503, 200),
            Phase.DEAD: (503, 503, 503),
        }
        for phase, statuses in expected.items():
            server.replica.phase = phase
            answers = [await client.get(path) for path in ("/livez", "/readyz", "/health")]
            assert tuple(answer.status_code for answer in answers) == statuses, phase
            assert answers[0].json()["phase"] == phase.value
            models = await client.get("/v1/models")
            assert models.status_code == (200 if phase is Phase.READY else 503)


async def test_f04_a_dead_engine_answers_503_and_ends_the_replica(live) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        await server.engine.close()
        answer = await client.post("/v1/completions", json={"model": "letters", "prompt": "a"})
        assert answer.status_code == 503
        assert server.replica.phase is Phase.DEAD
        assert (await client.get("/livez")).status_code == 503


async def test_request_ids_and_traces_come_back(live) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        answer = await client.get("/v1/models", headers={"x-request-id": "mine-1", "traceparent": parent})
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["traceparent"].startswith("00-" + "a" * 32)
        other = await client.get("/v1/models", headers={"x-request-id": "not ok"})
        assert len(other.headers["x-request-id"]) == 32


async def test_d35_what_clients_invent_never_becomes_a_label(live) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        for number in range(50):
            await client.get(f"/invented/{number}")
            await client.request(f"VERB{number}" if number % 2 else "PROPFIND", "/v1/models")
            await client.post("/v1/completions", json={"model": f"invented-{number}", "prompt": "a"})
            await client.get(f"/v1/models/invented-{number}")
        shown = (await client.get("/metrics")).text
    assert "invented" not in shown
    assert "VERB" not in shown
    assert shown.count("http_requests_total{") < 12


async def test_d34_prompts_and_keys_are_in_no_log(live) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        key = "a-very-secret-key"
        async with (
            live(api_keys=(key,), access_log=True) as server,
            httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {key}"}) as client,
        ):
            good = await client.post("/v1/completions", json={"model": "letters", "prompt": "my secret prompt"})
            assert good.status_code == 200
            await client.post("/v1/completions", json={"model": "letters", "prompt": "my secret prompt", "n": 10**6})
            await client.get("/v1/models?x=%0a%1b[31mred")
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    written = stream.getvalue()
    assert '"path":"/v1/completions"' in written
    assert "secret prompt" not in written
    assert key not in written
    assert "\x1b" not in written


async def test_openapi_describes_every_route_it_can(live) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        document = (await client.get("/openapi.json")).json()
    served = {re.sub(r":\w+}", "}", route.path) for route in server.app.routes if "/assets/" not in route.path}
    assert served - {"/", "/translate"} <= set(document["paths"])
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert chat["requestBody"]["required"]
    assert document["paths"]["/livez"]["get"]["security"] == []
    identifiers = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(identifiers) == len(set(identifiers))


async def test_the_page_and_its_files_are_served(live) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        again = await client.get("/", headers={"if-none-match": page.headers["etag"]})
        assert again.status_code == 304


async def test_load_and_version(live) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/load")).json() == {"server_load": 0}
        assert (await client.get("/version")).json()["version"]


def test_an_unexpected_error_is_a_500_without_its_text() -> None:
    replica = Replica()
    app = build_app(ServeSpec(model="m"), replica, Metrics())
    replica.ready()

    class Broken:
        def list(self) -> None:
            raise RuntimeError("internal detail")

    replica.registry.list = Broken().list  # type: ignore[method-assign,assignment]
    answer = TestClient(app.edge, raise_server_exceptions=False, base_url="http://localhost").get("/v1/models")
    assert answer.status_code == 500
    assert "internal detail" not in answer.text
