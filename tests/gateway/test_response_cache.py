"""What is kept, for whom, and who waits for whom: keys, single flight, bounds of bytes and time."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.inference_service import CachePolicy
from argosy.gateway.response_cache import CachedAnswer, CacheScope, Key, Lead, ResponseCache, cache_key

_SCOPE = CacheScope(principal="alice", service="chat", revision="v1", path="/v1/chat/completions")
_JSON = b"application/json"
_STREAM = b"text/event-stream; charset=utf-8"
_DONE = b"data: [DONE]\n\n"


def _body(**fields: Any) -> bytes:
    chat = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    return msgspec.json.encode({**chat, **fields})


def _key(scope: CacheScope = _SCOPE, **fields: Any) -> Key:
    key = cache_key(scope, _body(**fields))
    assert key is not None
    return key


class TestKey:
    @pytest.mark.parametrize(
        ("fields", "is_kept"),
        [
            ({}, True),
            ({"temperature": 0.0}, True),
            ({"temperature": None}, False),
            ({"temperature": 0.7}, False),
            ({"temperature": 0.7, "seed": 3}, True),
            ({"temperature": 0.7, "seed": 0}, True),
            ({"temperature": 0.7, "seed": -1}, False),
            ({"temperature": 0.7, "seed": 3.5}, False),
            ({"temperature": 0.7, "seed": True}, False),
            ({"temperature": False}, False),
            ({"temperature": "0"}, False),
            ({"n": 1}, True),
            ({"n": 2}, False),
            ({"best_of": 2}, False),
            ({"stream": True}, True),
            ({"return_timings": True}, False),
            ({"max_tokens": 2**70}, True),
        ],
    )
    def test_only_deterministic_requests_have_one(self, fields: dict[str, Any], is_kept: bool) -> None:
        assert (cache_key(_SCOPE, _body(**fields)) is not None) is is_kept

    @pytest.mark.parametrize("path", ["/v1/models", "/tokenize", "/v1/audio", ""])
    def test_other_paths_have_none(self, path: str) -> None:
        assert cache_key(msgspec.structs.replace(_SCOPE, path=path), _body()) is None

    def test_an_embedding_is_always_deterministic(self) -> None:
        assert cache_key(msgspec.structs.replace(_SCOPE, path="/v1/embeddings"), b'{"input": "hi"}') is not None

    @pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b'"text"', b"\xff", b"[" * 100_000])
    def test_nonsense_has_none(self, body: bytes) -> None:
        assert cache_key(_SCOPE, body) is None

    @pytest.mark.parametrize("header", [b"no-store", b"max-age=0, No-Store", b"no-cache", b" no-store ,private"])
    def test_a_client_may_refuse_it(self, header: bytes) -> None:
        assert cache_key(_SCOPE, _body(), header) is None

    @pytest.mark.parametrize("header", [b"", b"private", b"x-no-store-x", b"max-age=0"])
    def test_other_directives_change_nothing(self, header: bytes) -> None:
        assert cache_key(_SCOPE, _body(), header) == _key()

    @pytest.mark.parametrize(
        "fields",
        [
            {"user": "bob"},
            {"request_id": "r1"},
            {"metadata": {"a": "b"}},
            {"priority": 3},
            {"stream": False},
            {"stream": None},
            {"seed": None},
        ],
    )
    def test_what_changes_nothing_of_the_answer_does_not_count(self, fields: dict[str, Any]) -> None:
        assert _key(**fields) == _key()

    @pytest.mark.parametrize(
        "fields",
        [
            {"stream": True},
            {"stream": True, "stream_options": {"include_usage": True}},
            {"max_tokens": 5},
            {"stop": ["x"]},
            {"seed": 1},
            {"logprobs": True},
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {"response_format": {"type": "json_object"}},
            {"model": "chat-adapter"},
            {"messages": [{"role": "user", "content": "hi "}]},
            {"messages": [{"role": "system", "content": "hi"}]},
            {"anything": "else"},
        ],
    )
    def test_everything_else_counts(self, fields: dict[str, Any]) -> None:
        keys = {_key(), _key(**fields), _key(stream=True, **({} if "stream" in fields else fields))}
        assert len(keys) == (2 if fields == {"stream": True} else 3)

    def test_order_and_spacing_do_not_count(self) -> None:
        one = b'{"temperature": 0, "messages": [{"role": "user", "content": "h\\u0069"}], "model": "chat"}'
        assert cache_key(_SCOPE, one) == _key()

    @pytest.mark.parametrize("field", ["principal", "service", "revision", "path"])
    def test_d32_the_key_names_caller_service_revision_and_path(self, field: str) -> None:
        other = "/v1/completions" if field == "path" else "other"
        assert _key(msgspec.structs.replace(_SCOPE, **{field: other})) != _key()

    def test_d32_names_cannot_be_shifted_into_one_another(self) -> None:
        """`a` + `bc` is not `ab` + `c`: a caller cannot choose a name that makes another's key."""
        one = msgspec.structs.replace(_SCOPE, principal="a", service="bc")
        other = msgspec.structs.replace(_SCOPE, principal="ab", service="c")
        quoted = msgspec.structs.replace(_SCOPE, principal='a","bc', service="")
        assert len({_key(one), _key(other), _key(quoted)}) == 3

    @given(st.binary(max_size=200))
    def test_no_body_breaks_it(self, body: bytes) -> None:
        cache_key(_SCOPE, body)

    @given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner)))
    def test_no_value_breaks_it(self, value: Any) -> None:
        cache_key(_SCOPE, _body(messages=value))


def _answered(cache: ResponseCache, key: Key, body: bytes, now: float = 0.0) -> None:
    cache.keep(key, CachedAnswer(content_type=_JSON, body=body), now)


class TestBounds:
    def test_the_least_recently_used_make_room(self) -> None:
        cache = ResponseCache(CachePolicy(max_bytes=4000))
        for name in (b"a", b"b", b"c"):
            _answered(cache, name, b"x" * 500)
        assert cache.find(b"a", 0.0) is not None
        _answered(cache, b"d", b"x" * 500)
        assert [cache.find(name, 0.0) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
        assert cache.size_bytes <= 4000

    def test_an_answer_grows_too_old(self) -> None:
        cache = ResponseCache(CachePolicy(ttl_seconds=60))
        _answered(cache, b"a", b"x", now=100.0)
        assert cache.find(b"a", 159.9) is not None
        assert cache.find(b"a", 160.0) is None
        assert cache.size_bytes == 0

    def test_the_same_key_again_replaces_it(self) -> None:
        cache = ResponseCache(CachePolicy())
        _answered(cache, b"a", b"x" * 100)
        size = cache.size_bytes
        _answered(cache, b"a", b"y" * 100)
        assert (len(cache), cache.size_bytes) == (1, size)

    @given(sizes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000)), max_size=50))
    def test_the_books_are_right(self, sizes: list[tuple[int, int]]) -> None:
        cache = ResponseCache(CachePolicy(max_bytes=5000))
        for name, size in sizes:
            _answered(cache, bytes([name]), b"x" * size)
            assert cache.size_bytes <= 5000
        left = [cache.find(bytes([name]), 0.0) for name in range(10)]
        assert cache.size_bytes == sum(len(each.body) + len(_JSON) + 512 for each in left if each)


async def _lead(cache: ResponseCache, key: Key) -> Lead:
    found = await cache.join(key, 1.0)
    assert isinstance(found, Lead)
    return found


async def _turns() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.anyio
class TestSingleFlight:
    async def test_followers_get_what_the_leader_got(self) -> None:
        cache = ResponseCache(CachePolicy())
        lead = await _lead(cache, b"k")
        async with asyncio.TaskGroup() as group:
            followers = [group.create_task(cache.join(b"k", 1.0)) for _ in range(20)]
            await _turns()
            assert not any(follower.done() for follower in followers)
            with lead:
                lead.feed(b"ab")
                lead.feed(b"c")
                lead.complete(_JSON, 0.0)
        answer = CachedAnswer(content_type=_JSON, body=b"abc")
        assert [follower.result() for follower in followers] == [answer] * 20
        assert cache.find(b"k", 0.0) == answer

    async def test_when_the_leader_fails_one_follower_leads_and_the_others_wait_on(self) -> None:
        cache = ResponseCache(CachePolicy())
        lead = await _lead(cache, b"k")
        async with asyncio.TaskGroup() as group:
            followers = [group.create_task(cache.join(b"k", 1.0)) for _ in range(3)]
            await _turns()
            with lead:
                lead.feed(b"half")
            await _turns()
            assert [follower.done() for follower in followers] == [True, False, False]
            second = followers[0].result()
            assert isinstance(second, Lead)
            with second:
                second.feed(b"whole")
                second.complete(_JSON, 0.0)
        assert [_body_of(follower.result()) for follower in followers[1:]] == [b"whole", b"whole"]

    async def test_without_followers_a_failure_leaves_nothing(self) -> None:
        cache = ResponseCache(CachePolicy())
        with await _lead(cache, b"k"):
            pass
        assert cache.find(b"k", 0.0) is None
        with await _lead(cache, b"k") as again:
            again.feed(b"x")
            again.complete(_JSON, 0.0)
        assert cache.find(b"k", 0.0) is not None

    async def test_who_waits_too_long_goes_alone(self) -> None:
        cache = ResponseCache(CachePolicy())
        with await _lead(cache, b"k") as lead:
            assert await cache.join(b"k", 0.0) is None
            lead.feed(b"x")
            lead.complete(_JSON, 0.0)

    async def test_a_follower_whose_client_leaves_does_not_take_the_lead_with_it(self) -> None:
        """Cancelled in the very moment it was given the lead: the next in line has it."""
        cache = ResponseCache(CachePolicy())
        lead = await _lead(cache, b"k")
        leaving = asyncio.ensure_future(cache.join(b"k", 1.0))
        staying = asyncio.ensure_future(cache.join(b"k", 1.0))
        await _turns()
        with lead:
            pass
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert isinstance(await staying, Lead)

    async def test_a_follower_that_left_before_is_passed_over(self) -> None:
        cache = ResponseCache(CachePolicy())
        lead = await _lead(cache, b"k")
        leaving = asyncio.ensure_future(cache.join(b"k", 1.0))
        staying = asyncio.ensure_future(cache.join(b"k", 1.0))
        await _turns()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        with lead:
            pass
        assert isinstance(await staying, Lead)

    async def test_an_answer_too_large_to_keep_sends_everybody_on_their_own(self) -> None:
        cache = ResponseCache(CachePolicy(max_bytes=8000))
        lead = await _lead(cache, b"k")
        follower = asyncio.ensure_future(cache.join(b"k", 1.0))
        await _turns()
        with lead:
            lead.feed(b"x" * 1001)
            assert await follower is None
            lead.feed(b"x")
            lead.complete(_JSON, 0.0)
        assert cache.find(b"k", 0.0) is None

    @pytest.mark.parametrize(
        ("content_type", "body", "is_kept"),
        [
            (_STREAM, b'data: {"x":1}\n\n' + _DONE, True),
            (_STREAM, b'data: {"x":1}\n\n', False),
            (_STREAM, b'data: {"error":{}}\n\n', False),
            (_JSON, b"{}", True),
            (_JSON, b"", False),
        ],
    )
    async def test_only_whole_answers_are_kept(self, content_type: bytes, body: bytes, is_kept: bool) -> None:
        cache = ResponseCache(CachePolicy())
        with await _lead(cache, b"k") as lead:
            lead.feed(body)
            lead.complete(content_type, 0.0)
        assert (cache.find(b"k", 0.0) is not None) is is_kept

    async def test_a_broken_stream_hands_the_lead_over(self) -> None:
        cache = ResponseCache(CachePolicy())
        lead = await _lead(cache, b"k")
        follower = asyncio.ensure_future(cache.join(b"k", 1.0))
        await _turns()
        with lead:
            lead.feed(b'data: {"error":{}}\n\n')
            lead.complete(_STREAM, 0.0)
        assert isinstance(await follower, Lead)

    async def test_d32_equal_requests_of_two_callers_do_not_wait_for_each_other(self) -> None:
        """Another's request in flight, or its answer in memory, changes neither what I get nor when."""
        cache = ResponseCache(CachePolicy())
        alice, mallory = _key(), _key(msgspec.structs.replace(_SCOPE, principal="mallory"))
        with await _lead(cache, alice) as lead:
            assert isinstance(await cache.join(mallory, 0.0), Lead)
            lead.feed(b"secret")
            lead.complete(_JSON, 0.0)
        assert cache.find(mallory, 0.0) is None


def _body_of(found: CachedAnswer | Lead | None) -> bytes:
    assert isinstance(found, CachedAnswer)
    return found.body
