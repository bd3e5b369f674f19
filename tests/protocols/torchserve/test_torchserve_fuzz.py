"""Whatever is sent to any path, the answer is a 5xx only where we mean one, and errors have TorchServe's shape."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.protocols.torchserve.errors import WireError
from argosy.web.edge import Edge

SEGMENTS = st.one_of(
    st.sampled_from(
        ["predictions", "explanations", "models", "echo", "1.0", "all", "set-default", "invoke", "predict", "v1", "v2",
         "echo:predict", "nobody", "infer", "invocations", "ping", "api-description", "metrics", "workflows", "token",
         "..", "%2e%2e", "%00", "é", "a b", ""]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/?#%"), max_size=6),
)  # fmt: skip
QUERIES = st.dictionaries(
    st.sampled_from(["url", "model_name", "limit", "next_page_token", "min_worker", "max_worker", "batch_size",
                     "synchronous", "initial_workers", "customized", "timeout", "runtime", "name[]"]),
    st.sampled_from(["", "echo.mar", "echo", "1", "-1", "0", "true", "x", "9" * 30, "1e9", "\x00", "é", "../../etc"]),
    max_size=3,
)  # fmt: skip
TYPES = st.sampled_from(
    ["", "application/json", "text/plain", "multipart/form-data; boundary=XX", "multipart/form-data",
     "application/x-www-form-urlencoded", "x" * 300, ";;", "application/json; charset=\xff"]
)  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"{}", b'{"url": 1}', b'{"url": "echo.mar", "batch_size": {}}', b"[" * 900, b'{"a":1e999}',
                     b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--XX--']),
)  # fmt: skip
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"])
MEANT = {500, 501, 503}  # /ping is unhealthy, what is not served, no worker


async def ask(edge: Edge, method: str, url: str, content: bytes, kind: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://localhost") as client:
        headers = [("content-type", kind.encode("latin-1"))] if kind else []
        return await client.request(method, url, content=content, headers=headers)


def test_d25_no_request_is_more_than_a_refusal(opened: Any, store: Any) -> None:
    async def play(method: str, path: list[str], query: dict[str, str], body: bytes, kind: str) -> None:
        async with opened(store) as server:
            await server.load("echo.mar")
            url = "http://localhost/" + "/".join(quote(segment, safe="%") for segment in path)
            answer = await ask(server.edge(), method, f"{url}?{urlencode(query)}", body, kind)
        if answer.status_code >= 500:
            assert answer.status_code in MEANT, (answer.status_code, answer.text)
            assert "has logged why" not in answer.text, answer.text
        is_ours = path[:2] != ["v1", "models"] and method != "HEAD"
        if answer.status_code >= 400 and is_ours:
            msgspec.json.decode(answer.content, type=WireError)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(METHODS, st.lists(SEGMENTS, max_size=4), QUERIES, BODIES, TYPES)
    def fuzz(method: str, path: list[str], query: dict[str, str], body: bytes, kind: str) -> None:
        asyncio.run(play(method, path, query, body, kind))

    fuzz()
