"""What one tenant cannot do to another's requests, because there is no way to say it."""

from __future__ import annotations

from typing import Any

import pytest
from scripted import CHAT, route

from argosy.core.serve_spec import ServeSpec
from argosy.observe.metrics import Metrics
from argosy.server.app import build_app
from argosy.server.replica import Replica

pytestmark = pytest.mark.anyio

_READ_ONLY = {"GET", "HEAD", "POST"}
_NAMED = (
    "/v1/models/{model:path}",
    "/predictions/{model:path}",
    "/assets/{name:path}",
    "/translate/assets/{name:path}",
)


async def test_d32_no_route_takes_the_id_of_a_request(live: Any) -> None:
    """Nothing of a gateway or a replica looks a request up, or cancels one, by an id that could be guessed."""
    async with live() as server:
        routes = [*server.gateway.routes, *build_app(ServeSpec(model="m"), Replica(), Metrics()).routes]
    assert len(routes) > 20
    for each in routes:
        assert not each.param_convertors or each.path in _NAMED, each.path
        assert each.methods is None or each.methods <= _READ_ONLY, each.path
        assert not {"cancel", "abort", "requests", "responses"} & set(each.path.split("/")), each.path


async def test_d32_an_id_that_another_used_ends_nothing(live: Any, replicas: Any) -> None:
    """Two callers may even use the same id: it is an echo for logs."""
    (replica,) = await replicas("a")
    async with live() as server:
        await server.publish(route(replica.endpoint()))
        same = {"x-request-id": "shared-id"}
        answers = [await server.client.post("/v1/chat/completions", json=CHAT, headers=same) for _ in range(2)]
        assert [(answer.status_code, answer.headers["x-request-id"]) for answer in answers] == [(200, "shared-id")] * 2
        for method in ("DELETE", "POST"):
            answer = await server.client.request(method, "/v1/chat/completions/shared-id")
            assert answer.status_code in (400, 404, 405)
