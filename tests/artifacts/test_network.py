"""Which URLs may be asked: never one that leads inside, whatever it is written like (D-01, D-02)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import httpx
import pytest

from argosy.artifacts.network import PinnedTransport, UrlRules, is_public, parse_url
from argosy.core.errors import Forbidden

RULES = UrlRules(prefixes=("https://models.example.com/public/",), host_suffixes=("hf.co",))


@pytest.mark.parametrize(
    "url",
    ["https://models.example.com/public/a.gguf", "https://cdn.hf.co/x?signature=1", "https://hf.co/x"],
)
def test_allowed_urls_pass(url: str) -> None:
    RULES.check(httpx.URL(url))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost:8080/admin",
        "file:///etc/passwd",
        "ftp://hf.co/x",
        "http://hf.co/x",
        "https://hf.co:8443/x",
        "https://evilhf.co/x",
        "https://hf.co.evil.example/x",
        "https://hf.co@evil.example/x",
        "https://user:password@hf.co/x",
        "http://models.example.com/public/a.gguf",
        "https://models.example.com:444/public/a.gguf",
        "https://models.example.com/publicity/a.gguf",
        "https://models.example.com/public/../private/a.gguf",
        "https://models.example.com/a.gguf",
        "http://[::1]/x",
        "http://2130706433/x",
        "http://0177.0.0.1/x",
    ],
)
def test_d01_urls_off_the_list_are_refused(url: str) -> None:
    with pytest.raises(Forbidden):
        RULES.check(parse_url(url))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:7f00:1::", False),
    ],
)
def test_d01_addresses_inside_are_known_in_every_disguise(address: str, expected: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is expected


class Recorder(httpx.AsyncBaseTransport):
    """Answers everything, and remembers what was asked of it."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200)


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["fe80::1%eth0"]])
async def test_d01_names_that_resolve_inside_are_refused_before_connecting(answer: list[str]) -> None:
    recorder = Recorder()

    async def resolver(host: str, port: int) -> Sequence[str]:
        return answer

    transport = PinnedTransport(allow_private=False, resolver=resolver, connect=lambda: recorder)
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(Forbidden, match="not a public address"):
            await client.get("https://models.example.com/")
    assert recorder.requests == []


@pytest.mark.anyio
async def test_d02_connection_goes_to_the_address_that_was_checked() -> None:
    """A name that answers differently the second time (DNS rebinding) is asked once per request only."""
    recorder = Recorder()
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])

    async def resolver(host: str, port: int) -> Sequence[str]:
        return next(answers)

    transport = PinnedTransport(allow_private=False, resolver=resolver, connect=lambda: recorder)
    async with httpx.AsyncClient(transport=transport) as client:
        await client.get("https://models.example.com/x")
        with pytest.raises(Forbidden):
            await client.get("https://models.example.com/x")
    (request,) = recorder.requests
    assert request.url.host == "93.184.216.34"
    assert request.headers["host"] == "models.example.com"
    assert request.extensions["sni_hostname"] == "models.example.com"
