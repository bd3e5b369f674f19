"""The edge around a server that has no model: what it refuses follows from its `Paths` and its phase alone."""

from __future__ import annotations

import base64

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from argosy.core.errors import ArgosyError, EngineDead, EngineError
from argosy.core.principal import Principal, Scope
from argosy.core.web_spec import WebSpec
from argosy.observe.metrics import Metrics
from argosy.web.access import billed_to, door_for, presented_key
from argosy.web.api_keys import ApiKeys, StoredKey, digest_of
from argosy.web.edge import Edge, EdgeSettings
from argosy.web.lifecycle import Lifecycle, Phase
from argosy.web.operations import Operations
from argosy.web.paths import PROBES, Paths

API = Paths(
    default_scope=Scope.ADMIN,
    scopes={"/open": Scope.INFER},
    any_phase=frozenset({"/about"}),
    pages=frozenset({"/"}),
    page_prefixes=("/console/",),
)


def keys() -> ApiKeys:
    return ApiKeys(StoredKey(name=scope, sha256=digest_of(f"key-{scope}"), scopes=(scope,)) for scope in Scope)


async def say(request: Request) -> Response:
    return Response("said")


def client_of(lifecycle: Lifecycle, *, keys: ApiKeys, fails: ArgosyError | None = None) -> TestClient:
    async def fail(request: Request) -> Response:
        assert fails is not None
        raise fails

    metrics = Metrics()
    routes = [Route(path, say) for path in ("/", "/console/main.js", "/open", "/about", "/v1/things")] + [
        Route("/fail", fail)
    ]
    routes += Operations(lifecycle, metrics, "A server of nothing.").routes(routes)
    door = door_for(WebSpec(), keys, API)
    settings = EdgeSettings(door=door, max_body_bytes=1000, access_log=False, fatal=(EngineDead,))
    edge = Edge(routes, lifecycle, metrics, settings)
    return TestClient(edge, base_url="http://localhost", raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("path", "welcome"),
    [
        ("/v1/things", {Scope.ADMIN}),
        ("/no/such/route", {Scope.ADMIN}),
        ("/console/main.js", {Scope.ADMIN}),
        ("/open", {Scope.INFER, Scope.ADMIN}),
        ("/open/", {Scope.ADMIN}),
        ("/metrics", {Scope.METRICS, Scope.ADMIN}),
    ],
)
def test_d15_a_server_says_which_scope_each_path_takes_and_which_all_others(path, welcome) -> None:
    lifecycle = Lifecycle("starting")
    lifecycle.ready()
    client = client_of(lifecycle, keys=keys())
    for scope in Scope:
        status = client.get(path, headers={"authorization": f"Bearer key-{scope}"}).status_code
        assert (status == 403) == (scope not in welcome), (path, scope)
    assert client.get(path).status_code == 401


def test_only_pages_are_asked_for_with_a_log_in_form() -> None:
    lifecycle = Lifecycle("starting")
    client = client_of(lifecycle, keys=keys())
    asked = {path: client.get(path).headers["www-authenticate"] for path in ("/", "/console/x", "/open", "/consoles")}
    assert [answer.partition(" ")[0] for answer in asked.values()] == ["Basic", "Basic", "Bearer", "Bearer"]


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.DRAINING, Phase.DEAD])
def test_what_is_answered_in_any_phase(phase) -> None:
    lifecycle = Lifecycle("reading the store")
    lifecycle.phase = phase
    client = client_of(lifecycle, keys=ApiKeys())
    for path in ("/", "/console/main.js", "/about", "/metrics", "/version", "/openapi.json"):
        assert client.get(path).status_code == 200, path
    refused = client.get("/v1/things")
    assert (refused.status_code, refused.headers["retry-after"], refused.headers["connection"]) == (503, "1", "close")
    assert refused.json() == {
        "error": {
            "message": "reading the store",
            "type": "ServiceUnavailableError",
            "param": None,
            "code": 503,
            "reason": phase.value,
        },
        "message": "reading the store",
        "object": "error",
    }


def test_probes_need_no_key_and_are_no_work() -> None:
    lifecycle = Lifecycle("starting")
    lifecycle.ready()
    client = client_of(lifecycle, keys=keys())
    assert {path: client.get(path).status_code for path in PROBES} == dict.fromkeys(PROBES, 200)
    load = client.get("/load", headers={"authorization": "Bearer key-admin"})
    assert load.json() == {"server_load": 0}


@pytest.mark.parametrize(
    ("error", "phase"), [(EngineDead("the engine is gone"), Phase.DEAD), (EngineError("it failed"), Phase.READY)]
)
def test_only_a_fatal_error_ends_the_server(error, phase) -> None:
    lifecycle = Lifecycle("starting")
    lifecycle.ready()
    answer = client_of(lifecycle, keys=ApiKeys(), fails=error).get("/fail")
    assert answer.status_code == error.status
    assert lifecycle.phase is phase


def test_the_document_says_which_server_it_describes() -> None:
    document = client_of(Lifecycle("starting"), keys=ApiKeys()).get("/openapi.json").json()
    assert document["info"]["description"] == "A server of nothing."


def test_d15_schemes_are_case_insensitive_and_browsers_send_basic() -> None:
    pair = base64.b64encode(b"anyone:the-key").decode()
    assert presented_key("bearer the-key") == presented_key("BEARER the-key") == "the-key"
    assert presented_key(f"Basic {pair}") == "the-key"
    assert presented_key("Digest the-key") is None


@pytest.mark.parametrize(
    ("key", "named", "counted_to"),
    [
        ("key-admin", "ann", "ann"),
        ("key-admin", "", "admin"),
        ("key-admin", "a b", "admin"),
        ("key-infer", "ann", "infer"),
        ("", "ann", ""),
    ],
)
def test_only_an_admin_key_speaks_for_another_caller(key, named, counted_to) -> None:
    door = door_for(WebSpec(), keys() if key else ApiKeys(), API)
    principal = door.keys.principal(key) if key else Principal()
    assert principal is not None
    assert billed_to({b"x-argosy-caller": named.encode()}, principal, door) == counted_to
