"""What a key may take and what it may see, through the whole gateway: quotas (D-33) and kept answers (D-32)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest
from scripted import DONE, USAGE_COMMENT, LiveGateway, answer, eventually, gated, post, reset, route, stream

from argosy.core.inference_service import CachePolicy
from argosy.core.principal import Scope
from argosy.web.api_keys import KeyFile, StoredKey, digest_of

pytestmark = pytest.mark.anyio

CACHED = {"cache": CachePolicy(), "deadline_seconds": 5.0}


def key_file(path: Path, **limits: int) -> Path:
    """Keys `ann-secret` with limits, `ben-secret` without."""
    keys = (
        StoredKey(name="ann", sha256=digest_of("ann-secret"), scopes=(Scope.INFER,), **limits),
        StoredKey(name="ben", sha256=digest_of("ben-secret"), scopes=(Scope.INFER,)),
    )
    file = path / "keys.json"
    file.write_bytes(msgspec.json.encode(KeyFile(keys=keys)))
    file.chmod(0o600)
    return file


async def ask(gateway: LiveGateway, who: str, **fields: object) -> httpx.Response:
    body = {"model": "chat", "temperature": 0, "messages": [], **fields}
    return await gateway.client.post(
        "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {who}-secret"}
    )


async def test_d33_requests_per_minute_hold_however_many_come_at_once(live, replicas, tmp_path) -> None:
    (a,) = await replicas("a")
    async with live(api_keys_file=key_file(tmp_path, requests_per_minute=3)) as gateway:
        await gateway.publish(route(a.endpoint()))
        answers = await asyncio.gather(*(ask(gateway, "ann") for _ in range(10)))
        statuses = sorted(each.status_code for each in answers)
        assert statuses == [200] * 3 + [429] * 7
        refused = next(each for each in answers if each.status_code == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        good = next(each for each in answers if each.status_code == 200)
        assert good.headers["x-ratelimit-limit-requests"] == "3"
        assert (await ask(gateway, "ben")).status_code == 200
    assert len(a.requests) == 4


async def test_d33_tokens_are_settled_by_what_was_used_streams_and_leavers_too(live, replicas, tmp_path) -> None:
    (a,) = await replicas("a")
    async with live(api_keys_file=key_file(tmp_path, tokens_per_minute=1000)) as gateway:
        await gateway.publish(route(a.endpoint()))

        def left(got: httpx.Response) -> int:
            return int(got.headers["x-ratelimit-remaining-tokens"])

        assert left(await ask(gateway, "ann", max_tokens=900)) < 100  # reserved while it runs
        assert left(await ask(gateway, "ann", max_tokens=100)) in range(860, 892)  # 8 were used, some 120 are reserved
        a.default = stream("data: a\n\n", USAGE_COMMENT + DONE)
        await ask(gateway, "ann", stream=True, max_tokens=100)
        a.default = stream("data: a\n\n" * 200, "data: never\n\n", wait_before=1)
        body = b'{"model":"chat","stream":true,"max_tokens":300}'
        await gateway.send(post(body, "authorization: Bearer ann-secret"), wait_for=b"data: a")
        await eventually(lambda: a.num_aborted == 1)
        a.default = answer()
        got = await ask(gateway, "ann", max_tokens=10)
        assert 680 < left(got) < 790  # three answers of 8, and 200 events of the one that was left
        exposed = gateway.metrics.expose().decode()
    assert 'argosy_gateway_key_requests_total{key="ann",service="chat"} 5.0' in exposed


@pytest.mark.parametrize(
    "fields",
    [{"max_tokens": 900}, {"max_tokens": 9, "n": 100}, {"max_tokens": 1, "messages": [{"content": "x" * 3600}]}],
)
async def test_d33_all_that_a_request_may_take_is_reserved(live, replicas, tmp_path, fields) -> None:
    """Many answers, or a long prompt, while it runs: the next request finds little left."""
    (a,) = await replicas("a")
    a.default = gated(answer())
    async with live(api_keys_file=key_file(tmp_path, tokens_per_minute=1000)) as gateway:
        await gateway.publish(route(a.endpoint()))
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(gateway, "ann", **fields))
            await eventually(lambda: len(a.requests) == 1)
            assert (await ask(gateway, "ann", max_tokens=200)).status_code == 429
            a.go.set()
        assert first.result().status_code == 200


async def test_d33_a_failure_of_ours_costs_nothing(live, replicas, tmp_path) -> None:
    (a,) = await replicas("a")
    a.default = reset(b"H")
    async with live(api_keys_file=key_file(tmp_path, tokens_per_minute=1000)) as gateway:
        await gateway.publish(route(a.endpoint()))
        for _ in range(5):
            assert (await ask(gateway, "ann", max_tokens=900)).status_code == 502


async def test_a_deterministic_request_is_answered_from_memory_word_for_word(live, replicas) -> None:
    (a,) = await replicas("a")
    a.default = stream("data: a\n\n", "data: b\n\n", USAGE_COMMENT + DONE)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), **CACHED))
        first = await gateway.chat(temperature=0, stream=True)
        again = await gateway.chat(stream=True, temperature=0)
        other = await gateway.chat(temperature=1, stream=True)
        assert gateway.service().cache_hits == 1
    assert (first.headers["x-cache"], again.headers["x-cache"], "x-cache" in other.headers) == ("miss", "hit", False)
    assert again.text == first.text == "data: a\n\ndata: b\n\n" + DONE
    assert again.headers["content-type"] == first.headers["content-type"]
    assert len(a.requests) == 2


async def test_d32_a_kept_answer_is_its_keys_own(live, replicas, tmp_path) -> None:
    (a,) = await replicas("a")
    async with live(api_keys_file=key_file(tmp_path)) as gateway:
        await gateway.publish(route(a.endpoint(), **CACHED))
        met = [(await ask(gateway, who)).headers["x-cache"] for who in ("ann", "ann", "ben", "ben")]
    assert met == ["miss", "hit", "miss", "hit"]
    assert len(a.requests) == 2


async def test_equal_requests_at_once_run_one_time(live, replicas) -> None:
    (a,) = await replicas("a")
    a.default = gated(answer())
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), **CACHED))
        asked = [asyncio.ensure_future(gateway.chat(temperature=0)) for _ in range(10)]
        await eventually(lambda: gateway.gateway.lifecycle.in_flight == 10)
        a.go.set()
        answers = [await each for each in asked]
    assert {each.status_code for each in answers} == {200}
    assert len({each.text for each in answers}) == 1
    assert len(a.requests) == 1


@pytest.mark.parametrize(
    "bad",
    [
        answer({"error": "bad"}, 500),
        answer({"error": "bad"}, 400),
        stream("data: a\n\n", 'data: {"error":{}}\n\n'),
        stream("data: a\n\n", end=b""),
    ],
)
async def test_what_went_wrong_is_not_kept(live, replicas, bad) -> None:
    (a,) = await replicas("a")
    a.script.append(bad)
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), **CACHED))
        await gateway.chat(temperature=0)
        got = await gateway.chat(temperature=0)
    assert (got.status_code, got.headers["x-cache"]) == (200, "miss")
    assert len(a.requests) == 2


async def test_a_new_revision_begins_with_an_empty_cache(live, replicas) -> None:
    (a,) = await replicas("a")
    async with live() as gateway:
        await gateway.publish(route(a.endpoint("v1"), **CACHED))
        await gateway.chat(temperature=0)
        await gateway.publish(route(a.endpoint("v2"), **CACHED))
        assert (await gateway.chat(temperature=0)).headers["x-cache"] == "miss"


@pytest.mark.parametrize("asked", [10**18, 10**30, 10**400], ids=["64 bit", "no float", "no number"])
async def test_d33_a_number_beyond_all_answers_costs_what_was_used_and_no_more(live, replicas, tmp_path, asked) -> None:
    (a,) = await replicas("a")
    async with live(api_keys_file=key_file(tmp_path, tokens_per_minute=1000)) as gateway:
        await gateway.publish(route(a.endpoint()))
        assert (await ask(gateway, "ann", max_tokens=asked)).status_code == 200
        got = await ask(gateway, "ann", max_tokens=1)
    assert got.status_code == 200
    assert int(got.headers["x-ratelimit-remaining-tokens"]) > 900
