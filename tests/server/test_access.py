"""Who may come in (D-15, D-16, D-17), over a real socket."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from argosy.core.errors import SpecError
from argosy.core.principal import Scope
from argosy.core.serve_spec import ServeSpec, check_serve_spec
from argosy.web.api_keys import create_key, revoke_key
from argosy.web.paths import PROBES

pytestmark = pytest.mark.anyio


def key_file(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    path = tmp_path / "keys.json"
    scopes = {"infer": (Scope.INFER,), "metrics": (Scope.METRICS,), "admin": (Scope.ADMIN,)}
    return path, {name: create_key(path, name, held) for name, held in scopes.items()}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_d15_every_route_of_the_table_is_closed_without_a_key(live, tmp_path) -> None:
    path, _ = key_file(tmp_path)
    async with live(api_keys_file=path) as server, httpx.AsyncClient(base_url=server.url) as client:
        seen = 0
        for route in server.app.routes:
            for method in route.methods:
                answer = await client.request(method, route.path.replace("{", "").replace("}", ""))
                expected = 200 if route.path in PROBES else 401
                assert answer.status_code == expected, (method, route.path)
                if expected == 401:
                    assert "www-authenticate" in answer.headers
                seen += 1
        assert seen > 15
        assert (await client.get("/no/such/route")).status_code == 401
        assert (await client.get("/health/")).status_code == 401
        assert (await client.get("//health")).status_code == 401


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({"authorization": "Bearer wrong-key-wrong-key"}, "/v1/models"),
        ({"authorization": "Bearer"}, "/v1/models"),
        ({"authorization": "KEY"}, "/v1/models"),
        ({"authorization": "Basic !!!"}, "/v1/models"),
        ({"x-api-key": "KEY"}, "/v1/models"),
        ({}, "/v1/models?api_key=KEY"),
        ({}, "/v1/models?authorization=Bearer%20KEY"),
    ],
)
async def test_d15_a_key_counts_only_in_its_header_and_only_if_known(live, tmp_path, headers, path) -> None:
    file, keys = key_file(tmp_path)
    filled = {name: value.replace("KEY", keys["infer"]) for name, value in headers.items()}
    async with live(api_keys_file=file) as server, httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.get(path.replace("KEY", keys["infer"]), headers=filled)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "AuthenticationError"
    assert keys["infer"] not in answer.text


async def test_d15_two_authorization_headers_are_refused(live, tmp_path) -> None:
    file, keys = key_file(tmp_path)
    async with live(api_keys_file=file) as server:
        line = f"Authorization: Bearer {keys['infer']}\r\n"
        raw = f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{line}{line}Connection: close\r\n\r\n"
        answer = await server.send(raw.encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"came twice" in answer


@pytest.mark.parametrize(
    ("key", "path", "status"),
    [
        ("infer", "/v1/models", 200),
        ("infer", "/metrics", 403),
        ("infer", "/load", 403),
        ("metrics", "/metrics", 200),
        ("metrics", "/v1/models", 403),
        ("admin", "/v1/models", 200),
        ("admin", "/metrics", 200),
    ],
)
async def test_d15_scopes(live, tmp_path, key, path, status) -> None:
    file, keys = key_file(tmp_path)
    async with live(api_keys_file=file) as server, httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get(path, headers=bearer(keys[key]))).status_code == status


async def test_an_empty_key_file_does_not_open_the_door(live, tmp_path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, "ci", (Scope.INFER,))
    revoke_key(path, "ci")
    with pytest.raises(SpecError, match="holds no key, so nobody could get in"):
        async with live(api_keys_file=path):
            pass


async def test_d15_a_revoked_key_stops_working_at_once_and_a_new_one_starts(live, tmp_path) -> None:
    file, keys = key_file(tmp_path)
    async with live(api_keys_file=file) as server, httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/v1/models", headers=bearer(keys["infer"]))).status_code == 200
        revoke_key(file, "infer")
        assert (await client.get("/v1/models", headers=bearer(keys["infer"]))).status_code == 401
        later = create_key(file, "later", (Scope.INFER,))
        assert (await client.get("/v1/models", headers=bearer(later))).status_code == 200
        for name in ("metrics", "admin", "later"):
            revoke_key(file, name)
        for key in (*keys.values(), later):
            assert (await client.get("/v1/models", headers=bearer(key))).status_code == 401


@pytest.mark.parametrize("spoil", ["malformed", "missing", "open to others"])
async def test_f16_an_unusable_key_file_changes_nothing_but_a_metric(live, tmp_path, spoil) -> None:
    file, keys = key_file(tmp_path)
    good = file.read_bytes()
    async with live(api_keys_file=file) as server, httpx.AsyncClient(base_url=server.url) as client:
        failures = server.metrics.counter("argosy_api_keys_reload_failures")
        if spoil == "malformed":
            file.write_text("{")
        elif spoil == "missing":
            file.unlink()
        else:
            file.chmod(0o644)
        for _ in range(3):
            assert (await client.get("/v1/models", headers=bearer(keys["infer"]))).status_code == 200
        assert (await client.get("/v1/models", headers=bearer("a-wrong-key"))).status_code == 401
        assert failures.value == 1
        file.write_bytes(good)
        file.chmod(0o600)
        revoke_key(file, "infer")
        assert (await client.get("/v1/models", headers=bearer(keys["infer"]))).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_d16_others_are_not_let_in_without_a_key(host) -> None:
    with pytest.raises(SpecError, match="lets other machines in, and no API key is set"):
        check_serve_spec(ServeSpec(model="m", host=host))
    check_serve_spec(ServeSpec(model="m", host=host, insecure=True))
    check_serve_spec(ServeSpec(model="m", host=host, api_keys=("long-enough-key",)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_d16_the_own_machine_needs_no_key(host) -> None:
    check_serve_spec(ServeSpec(model="m", host=host))


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "evil"])
async def test_d17_a_rebound_name_is_not_ours(live, host) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.get("/v1/models", headers={"host": host})
    assert answer.status_code == 403
    assert "is not served here" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "[::1]:80", "10.0.0.7"])
async def test_d17_own_names_and_bare_addresses_are_ours(live, host) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/v1/models", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
async def test_d17_pages_from_elsewhere_are_refused(live, origin) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        for method, path in (("POST", "/v1/completions"), ("GET", "/v1/models"), ("OPTIONS", "/v1/models")):
            answer = await client.request(method, path, headers={"origin": origin}, json={})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers


async def test_d17_an_allowed_origin_and_our_own_page_may_call(live) -> None:
    friend = "https://app.example"
    async with live(allowed_origins=(friend,)) as server, httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.get("/v1/models", headers={"origin": friend})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, friend)
        asked = await client.options("/v1/models", headers={"origin": friend})
        assert asked.status_code == 204
        own = await client.get("/v1/models", headers={"origin": server.url})
        assert own.status_code == 200
        assert "access-control-allow-origin" not in own.headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_d17_bodies_a_foreign_form_could_send_are_refused(live, kind) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/v1/completions", content=b'{"prompt":"a"}', headers={"content-type": kind})
    assert answer.status_code == 400
    assert "only 'application/json' is read here" in answer.json()["error"]["message"]


async def test_d17_nothing_may_be_framed_or_sniffed(live) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        for path in ("/", "/v1/models", "/livez", "/nowhere"):
            headers = (await client.get(path)).headers
            assert headers["x-frame-options"] == "DENY"
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    "name", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "....//app.py", "/etc/passwd", "app.js%00", ""]
)
async def test_d21_the_page_has_only_its_own_files(live, name) -> None:
    async with live() as server:
        raw = f"GET /assets/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert (await server.send(raw.encode())).startswith(b"HTTP/1.1 404 ")
