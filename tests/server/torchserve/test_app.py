"""Who may call which of the three APIs, and what a listener of several answers. In process, no worker is started."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from argosy.core.principal import Scope
from argosy.core.torchserve_spec import Address, Compat, TorchServeSpec
from argosy.protocols.torchserve import Api
from argosy.server.torchserve.app import AppWiring, listeners, open_to_others
from argosy.server.torchserve.meters import open_meters
from argosy.server.torchserve.models import TorchServeModels, open_models
from argosy.web.api_keys import create_key
from argosy.web.lifecycle import Lifecycle

pytestmark = pytest.mark.anyio

Clients = dict[Api, httpx.AsyncClient]
Start = Callable[..., Any]
ANYWHERE = Address("0.0.0.0", 8081)


async def unchanged(_: TorchServeModels) -> None:
    """Nobody keeps snapshots."""


@pytest.fixture
def apis(tmp_path: Path) -> Start:
    """`async with apis(spec's fields) as clients:`, one for each API, over the edges of a ready server."""

    @asynccontextmanager
    async def start(**fields: Any) -> AsyncIterator[Clients]:
        spec = TorchServeSpec(model_store=tmp_path, store=tmp_path / "cache", **fields)
        lifecycle = Lifecycle("models are loading")
        meters = open_meters(spec.metrics_settings)
        async with AsyncExitStack() as stack:
            models = await stack.enter_async_context(open_models(spec, meters, unchanged))
            wiring = AppWiring(spec, models, lifecycle, meters.metrics)
            lifecycle.ready()
            clients: Clients = {}
            for group, address in listeners(spec).items():
                transport = httpx.ASGITransport(wiring.edge(group))
                base = f"http://127.0.0.1:{address.port}"
                client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=base))
                clients |= dict.fromkeys(group, client)
            yield clients

    return start


@pytest.mark.parametrize(
    ("fields", "says", "leaves_out"),
    [
        ({}, "", "warning"),
        ({"management": ANYWHERE, "api_keys": ("a-key-of-the-test",)}, "", "warning"),
        ({"host": "0.0.0.0"}, "may call inference without a key: pass --api-keys-file", "models"),
        ({"management": ANYWHERE}, "may call management without a key", "inference"),
        ({"management": ANYWHERE}, "until then models cannot be changed over HTTP", "may change"),
        ({"management": ANYWHERE, "enable_model_api": True}, "whoever reaches 0.0.0.0:8081 may change models", "until"),
        ({"management": ANYWHERE, "enable_model_api": False}, "may call management without a key", "models"),
        (
            {"host": "0.0.0.0", "management": ANYWHERE, "metrics": Address("0.0.0.0", 8082)},
            "may call inference, management, metrics without a key",
            "may change",
        ),
    ],
)
def test_the_start_says_in_one_line_what_is_open_to_others(fields: Any, says: str, leaves_out: str) -> None:
    line = open_to_others(TorchServeSpec(**fields))
    assert says in line
    assert leaves_out not in line
    assert "\n" not in line
    assert bool(line) == bool(says)


def test_apis_of_one_address_share_a_listener() -> None:
    apart = listeners(TorchServeSpec())
    assert [set(group) for group in apart] == [{Api.INFERENCE}, {Api.MANAGEMENT}, {Api.METRICS}]
    merged = TorchServeSpec(management=Address("127.0.0.1", 8080), metrics=Address("127.0.0.1", 8082))
    assert listeners(merged) == {
        frozenset({Api.INFERENCE, Api.MANAGEMENT}): Address("127.0.0.1", 8080),
        frozenset({Api.METRICS}): Address("127.0.0.1", 8082),
    }
    free = Address("127.0.0.1", 0)
    assert len(listeners(TorchServeSpec(port=0, management=free, metrics=free))) == 3


CHANGES = [("POST", "/models?url=none.mar"), ("PUT", "/models/m?min_worker=9"), ("DELETE", "/models/m"),
           ("PUT", "/models/m/1.0/set-default"), ("DELETE", "/models/m/1.0")]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 404),  # from this machine: looked for, and not there
        ({"management": ANYWHERE, "insecure": True}, 403),
        ({"management": ANYWHERE, "insecure": True, "enable_model_api": True}, 404),
    ],
)
async def test_models_are_changed_by_whom_it_is_for(
    apis: Start, method: str, path: str, fields: dict[str, Any], status: int
) -> None:
    async with apis(**fields) as clients:
        answer = await clients[Api.MANAGEMENT].request(method, path)
        assert answer.status_code == status, answer.text
        assert answer.json()["code"] == status
        assert (await clients[Api.MANAGEMENT].get("/models")).json() == {"models": []}


async def test_registration_can_be_turned_off_as_torchserve_does_it(apis: Start) -> None:
    async with apis(enable_model_api=False) as clients:
        statuses = [(await clients[Api.MANAGEMENT].request(method, path)).status_code for method, path in CHANGES]
    assert statuses == [405, 404, 405, 404, 405]


async def test_d15_every_api_asks_for_its_own_scope(apis: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = {scope: create_key(file, scope.value, (scope,)) for scope in Scope}
    wanted = {
        Api.INFERENCE: ("/predictions/m", Scope.INFER),
        Api.MANAGEMENT: ("/models", Scope.ADMIN),
        Api.METRICS: ("/metrics", Scope.METRICS),
    }
    async with apis(api_keys_file=file) as clients:
        for api, (path, needed) in wanted.items():
            nobody = await clients[api].get(path)
            assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
            for scope, key in keys.items():
                answer = await clients[api].get(path, headers={"authorization": f"Bearer {key}"})
                may_pass = scope in (needed, Scope.ADMIN)
                assert (answer.status_code in (200, 404)) is may_pass, (api, scope, answer.text)
        for path in ("/ping", "/livez", "/readyz"):
            assert (await clients[Api.INFERENCE].get(path)).status_code == 200
        unknown = await clients[Api.MANAGEMENT].get("/no/such/path")
        assert unknown.status_code == 401


async def test_strict_answers_a_missing_key_with_torchserves_own_status(apis: Start) -> None:
    async with apis(api_keys=("a-long-enough-key",), compat=Compat.STRICT) as clients:
        answer = await clients[Api.INFERENCE].post("/predictions/m")
    assert (answer.status_code, answer.json()["type"]) == (400, "InvalidKeyException")


@pytest.mark.parametrize(
    ("fields", "status"),
    [({}, 403), ({"host": "0.0.0.0", "insecure": True}, 404), ({"allowed_hosts": ("t5-inference",)}, 404)],
)
async def test_d17_a_name_of_the_cluster_is_ours_where_others_reach_us(
    apis: Start, fields: dict[str, Any], status: int
) -> None:
    """On loopback a foreign name is a rebound one; on an open address nobody here knows what a cluster calls it."""
    async with apis(**fields) as clients:
        answer = await clients[Api.INFERENCE].post("/predictions/m", headers={"host": "t5-inference:8080"})
    assert answer.status_code == status


async def test_a_server_that_is_loading_takes_no_requests_and_says_so(apis: Start) -> None:
    async with apis() as clients:
        transport = clients[Api.INFERENCE]._transport
        assert isinstance(transport, httpx.ASGITransport)
        transport.app._lifecycle.drain()  # type: ignore[attr-defined]
        answer = await clients[Api.INFERENCE].post("/predictions/m")
        assert (answer.status_code, answer.json()["reason"]) == (503, "draining")
        assert "retry-after" in answer.headers
        assert (await clients[Api.METRICS].get("/metrics")).status_code == 200
        assert (await clients[Api.MANAGEMENT].get("/models")).status_code == 200
