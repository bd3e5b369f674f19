"""Whatever is sent, the answer is a 2xx or a 4xx in our own shape, never a 5xx and never an exception."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from argosy.protocols.openai.chat_request import ChatCompletionRequest
from argosy.protocols.openai.embeddings import EmbeddingRequest
from argosy.protocols.openai.text_request import CompletionRequest
from argosy.protocols.openai.tokens import DetokenizeRequest, TokenizeRequest
from argosy.protocols.openai.unhonoured import UNHONOURED
from argosy.serving.registry import ModelRegistry
from argosy.web.errors import ErrorBody

BODIES: dict[str, type[msgspec.Struct]] = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}
# Values that have made servers fall over, and good ones to get past the first check.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(
        ["echo", "vectors", "user", "assistant", "tool", "auto", "required", "text", "json_object", "<|im_end|>"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "name", "function", "json", "0"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
        optional={"content": SCALARS | VALUES, "name": VALUES, "tool_calls": VALUES, "reasoning": VALUES},
    ),
    max_size=3,
)
SEEDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "/v1/chat/completions": st.fixed_dictionaries({"model": st.just("echo"), "messages": MESSAGES | VALUES}),
    "/v1/completions": st.fixed_dictionaries({"model": st.just("echo"), "prompt": st.text(max_size=9) | VALUES}),
    "/v1/embeddings": st.fixed_dictionaries({"model": st.just("vectors"), "input": st.text(max_size=9) | VALUES}),
    "/tokenize": st.fixed_dictionaries({"model": st.just("echo")}),
    "/detokenize": st.fixed_dictionaries({"model": st.just("echo"), "tokens": st.lists(st.integers(0, 300)) | VALUES}),
}


def bodies(path: str) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies that begin well and go wrong in a few fields."""
    names = st.sampled_from([*BODIES[path].__struct_encode_fields__, *sorted(UNHONOURED), "zzz"])
    return st.builds(lambda seed, extra: seed | extra, SEEDS[path], st.dictionaries(names, VALUES, max_size=4))


async def post(app: Starlette, path: str, content: bytes) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://argosy") as client:
        return await client.post(path, content=content, headers={"content-type": "application/json"})


def check(response: httpx.Response) -> None:
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        msgspec.json.decode(response.content, type=ErrorBody)


@pytest.mark.parametrize("path", BODIES)
def test_d26_no_body_is_a_5xx(path: str, registry: ModelRegistry, make_app: Any) -> None:
    app = make_app(registry)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies(path))
    def fuzz(body: dict[str, Any]) -> None:
        check(asyncio.run(post(app, path, json.dumps(body).encode())))

    fuzz()
    stats = registry.get("echo").stats()
    assert (stats.num_requests_running, stats.num_requests_waiting) == (0, 0)


@pytest.mark.parametrize("path", BODIES)
def test_d25_no_bytes_are_a_5xx(path: str, registry: ModelRegistry, make_app: Any) -> None:
    app = make_app(registry)
    good = json.dumps({"model": "echo", "prompt": "é", "n": 1, "temperature": 0.5}).encode()

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=40), st.integers(0, len(good)), st.integers(0, len(good)))
    def fuzz(junk: bytes, start: int, end: int) -> None:
        check(asyncio.run(post(app, path, good[:start] + junk + good[end:])))

    fuzz()
