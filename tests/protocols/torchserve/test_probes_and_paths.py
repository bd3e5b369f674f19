"""Health, keys, scopes, browsers, `/invocations`, and which listener answers what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from argosy.core.errors import ModelNotFound
from argosy.core.principal import Scope
from argosy.core.torchserve_spec import Compat
from argosy.protocols.torchserve import Api, Parts, WireSettings, paths_of, rejection, routes_of
from argosy.serving.registry import ModelRegistry
from argosy.web.api_keys import ApiKeys, StoredKey, digest_of

pytestmark = pytest.mark.anyio

OIP = WireSettings(open_inference=True)


def keys() -> ApiKeys:
    return ApiKeys(StoredKey(name=scope, sha256=digest_of(f"key-{scope}"), scopes=(scope,)) for scope in Scope)


def bearer(scope: Scope) -> dict[str, str]:
    return {"authorization": f"Bearer key-{scope}"}


async def test_ping_follows_health_and_the_servers_life(server) -> None:
    async with server.client(Api.INFERENCE) as client:
        healthy = await client.get("/ping")
        assert (healthy.status_code, healthy.text) == (200, '{\n  "status": "Healthy"\n}\n')
        server.lifecycle.drain()
        ill = await client.get("/ping")
        assert (ill.status_code, ill.json()) == (500, {"status": "Unhealthy"})


async def test_a_server_that_is_not_ready_refuses_predictions_and_shows_its_models(server) -> None:
    server.lifecycle.drain()
    async with server.client() as client:
        refused = await client.post("/predictions/echo")
        assert (refused.status_code, refused.json()["type"]) == (503, "ServiceUnavailableException")
        assert (refused.json()["reason"], refused.headers["retry-after"]) == ("draining", "1")
        assert (await client.get("/models/echo")).status_code == 200
        for method, path in (("POST", "/models?url=echo.mar"), ("PUT", "/models/echo"), ("DELETE", "/models/echo")):
            changed = await client.request(method, path)
            assert (changed.status_code, changed.json()["reason"]) == (503, "draining")
        assert server.administration.registry.names() == ["echo"]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/v2/health/live", 200, {"live": True}),
        ("/v2/health/ready", 200, {"ready": True}),
        ("/v2/models/echo", 200, {"name": "echo", "versions": ["1.0"], "platform": "", "inputs": [], "outputs": []}),
        ("/v2/models/echo/ready", 200, {"name": "echo", "ready": True}),
        ("/v2/models/nobody/ready", 404, None),
        ("/v2/models/echo/versions/1.0", 501, None),
        ("/v2/models/echo/versions/1.0/ready", 501, None),
    ],
)
async def test_the_open_inference_protocol_is_there_where_it_is_wanted(
    server, path: str, status: int, body: Any
) -> None:
    async with server.client(Api.INFERENCE, settings=OIP) as client, server.client(Api.INFERENCE) as plain:
        answer = await client.get(path)
        assert answer.status_code == status
        assert body is None or answer.json() == body
        assert (await client.get("/v2")).json()["name"] == "argosy"
        assert (await plain.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("api", "path", "status"),
    [
        (Api.INFERENCE, "/models", 404),
        (Api.INFERENCE, "/v1/models/echo", 404),
        (Api.MANAGEMENT, "/predictions/echo", 404),
        (Api.MANAGEMENT, "/v1/models/echo", 200),
        (Api.METRICS, "/predictions/echo", 404),
        (Api.METRICS, "/metrics", 200),
        (Api.METRICS, "/metrics/", 200),
        (Api.MANAGEMENT, "/models/", 200),
        (Api.MANAGEMENT, "/models/echo/1.0//", 200),
        (Api.INFERENCE, "/predictions/echo/", 200),
        (Api.INFERENCE, "/ping/", 200),
        (Api.INFERENCE, "/predictions/", 404),
        (Api.INFERENCE, "/metrics", 200),
    ],
)
async def test_a_listener_answers_its_own_api(server, api: Api, path: str, status: int) -> None:
    async with server.client(api) as client:
        assert (await client.get(path)).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "welcome"),
    [
        ("POST", "/predictions/echo", {Scope.INFER, Scope.ADMIN}),
        ("POST", "/models/echo/invoke", {Scope.INFER, Scope.ADMIN}),
        ("GET", "/models", {Scope.ADMIN}),
        ("GET", "/models/", {Scope.ADMIN}),
        ("DELETE", "/models/nobody/1.0/", {Scope.ADMIN}),
        ("GET", "/metrics/", {Scope.METRICS, Scope.ADMIN}),
        ("DELETE", "/models/nobody", {Scope.ADMIN}),
        ("GET", "/workflows", {Scope.ADMIN}),
        ("GET", "/metrics", {Scope.METRICS, Scope.ADMIN}),
        ("GET", "/nowhere", {Scope.INFER, Scope.ADMIN}),
    ],
)
async def test_d15_every_path_of_a_merged_listener_takes_its_scope(
    server, method: str, path: str, welcome: set[Scope]
) -> None:
    async with server.client(keys=keys()) as client:
        for scope in Scope:
            status = (await client.request(method, path, headers=bearer(scope))).status_code
            assert (status == 403) == (scope not in welcome), scope
        assert (await client.request(method, path)).status_code == 401


async def test_d15_listeners_of_their_own_take_one_scope_each(server) -> None:
    parts = Parts(administration=server.administration, lifecycle=server.lifecycle, metrics=server.metrics)
    found = {api: paths_of(frozenset({api}), parts).scope_of("/models/x") for api in Api}
    assert found == {Api.INFERENCE: Scope.INFER, Api.MANAGEMENT: Scope.ADMIN, Api.METRICS: Scope.METRICS}


async def test_without_a_token_it_is_401_and_probes_are_open(server) -> None:
    async with server.client(keys=keys(), settings=OIP) as client:
        answer = await client.post("/predictions/echo")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json()["type"] == "InvalidKeyException"
        for path in ("/ping", "/v2/health/live", "/v2/health/ready"):
            assert (await client.get(path)).status_code == 200


async def test_strict_answers_400_to_a_wrong_token(server) -> None:
    async with server.client(keys=keys(), settings=WireSettings(compat=Compat.STRICT)) as client:
        answer = await client.post("/predictions/echo", headers={"authorization": "Bearer wrong"})
    text = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
    assert (answer.status_code, answer.json()) == (400, {"code": 400, "type": "InvalidKeyException", "message": text})
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_d17_any_body_is_taken_but_not_from_a_foreign_page(
    server, method: str, headers: dict[str, str], status: int
) -> None:
    async with server.client() as client:
        answer = await client.request(
            method, "/predictions/echo", content=b"a=1", headers={"content-type": "text/plain", **headers}
        )
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["type"] == "ForbiddenException"


async def chat(request: Request) -> Response:
    return PlainTextResponse("chat")


async def completions(request: Request) -> Response:
    return PlainTextResponse("completions")


OPENAI = [
    Route("/v1/chat/completions", chat, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
]


class OneModel(ModelRegistry):
    """A registry that has a generating model, as far as anyone asks."""

    def list(self) -> Any:
        return ["t5"]


@pytest.mark.parametrize(
    ("url", "body", "answered"),
    [
        ("/invocations", {"messages": []}, "chat"),
        ("/invocations", {"prompt": "x", "messages": None}, "chat"),
        ("/invocations", {"prompt": "x"}, "completions"),
        ("/invocations", {"text": "x"}, "echo"),
        ("/invocations", [1], "echo"),
        ("/invocations?model_name=echo", {"prompt": "x"}, "echo"),
    ],
)
async def test_invocations_go_by_what_is_asked(server, url: str, body: Any, answered: str) -> None:
    async with server.client(Api.INFERENCE, models=OneModel(), openai=OPENAI) as client:
        answer = await client.post(url, json=body)
    assert answer.status_code == 200
    assert answer.text == answered or answer.json()["parts"][0]["content"] == json.dumps(body, separators=(",", ":"))


async def card(request: Request) -> Response:
    if request.path_params["model"] != "t5":
        raise ModelNotFound("no such model")
    return JSONResponse({"id": "t5", "object": "model"})


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("echo", {"name": "echo", "ready": True}),
        ("t5", {"id": "t5", "object": "model"}),
        ("nobody", None),
    ],
)
async def test_a_merged_listener_answers_for_both_views_of_a_model(server, name: str, body: Any) -> None:
    async with server.client(openai=[Route("/v1/models/{model:path}", card)]) as client:
        answer = await client.get(f"/v1/models/{name}")
        assert (answer.status_code, answer.json()) == (200, body) if body else answer.status_code == 404
        if name == "t5":
            await server.load("echo.mar", model_name="t5")
            both = {"id": "t5", "object": "model", "name": "t5", "ready": True}
            assert (await client.get("/v1/models/t5")).json() == both


async def test_without_a_generating_model_a_prompt_is_the_handlers(server) -> None:
    async with server.client(Api.INFERENCE, models=ModelRegistry(), openai=OPENAI) as client:
        answer = await client.post("/invocations", json={"prompt": "x"})
    assert answer.json()["parts"][0]["content"] == '{"prompt":"x"}'


async def test_invocations_need_a_name_where_there_are_several_models(server) -> None:
    await server.load("echo-2.mar", model_name="other", is_loaded_at_startup=True)
    async with server.client(Api.INFERENCE) as client:
        answer = await client.post("/invocations", json={})
        named = await client.post("/invocations", data={"model_name": "other"})
    assert [part["content"] for part in named.json()["parts"]] == ["other"]
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException")
    assert answer.json()["message"].startswith("Parameter model_name is required")


async def test_errors_of_openais_paths_keep_openais_shape(server) -> None:
    async with server.client(Api.INFERENCE, openai=OPENAI) as client:
        for path in ("/v1/chat/completions", "/v1/completions"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (405, 405)
        no_json = await client.post("/v1/completions", content=b"x", headers={"content-type": "text/plain"})
        assert no_json.json()["error"]["type"] == "BadRequestError"
        assert (await client.post("/v1/models/nobody:predict")).json()["type"] == "ModelNotFoundException"


def test_who_never_reaches_a_route_is_told_in_the_same_shape() -> None:
    assert json.loads(rejection(431, "too large")) == {
        "code": 431,
        "type": "BadRequestException",
        "message": "too large",
    }
    assert json.loads(rejection(503, "full"))["type"] == "ServiceUnavailableException"


async def test_every_route_describes_itself(server) -> None:
    async with server.client(settings=OIP) as client:
        described = (await client.get("/openapi.json")).json()
    parts = Parts(administration=server.administration, lifecycle=server.lifecycle, metrics=server.metrics)
    routes = routes_of(frozenset(Api), parts)
    assert {route.path.replace(":path", "") for route in routes} <= {*described["paths"]}
    assert described["paths"]["/models"]["post"]["parameters"][0]["name"] == "url"
    assert "503" in described["paths"]["/predictions/{model}"]["post"]["responses"]
