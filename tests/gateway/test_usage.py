"""The usage comment is read and taken out, and nothing else, however a stream is cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.gateway.transport import ReplicaFailure
from argosy.gateway.usage import EventFilter, Usage, usage_of

COMMENT = b': usage {"prompt_tokens":5,"completion_tokens":3,"cached_tokens":1}\n\n'
EVENTS = [b'data: {"text":"a"}\n\n', b": keep-alive\n\n", b'data: {"text":": usage {}"}\n\n', b"data: : usage\n\n"]
DONE = b"data: [DONE]\n\n"


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.sampled_from(EVENTS), max_size=6), st.lists(st.integers(0, 10_000), max_size=30), st.booleans())
def test_any_cutting_gives_the_same(events, places, has_usage) -> None:
    text = b"".join(events)
    stream = text + (COMMENT if has_usage else b"") + DONE
    reader = EventFilter()
    passed = b"".join(reader.feed(piece) for piece in cut(stream, places))
    assert passed == text + DONE
    assert reader.is_done
    assert reader.usage == (Usage(5, 3) if has_usage else None)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_pass_up_to_their_last_whole_event(stream, places) -> None:
    reader = EventFilter()
    passed = b"".join(reader.feed(piece) for piece in cut(stream, places))
    whole = stream[: stream.rfind(b"\n\n") + 2] if b"\n\n" in stream else b""
    if b": usage " not in stream:
        assert passed == whole


def test_half_an_event_is_held_back_so_that_an_error_can_follow() -> None:
    reader = EventFilter()
    assert reader.feed(b"data: a\n\ndata: b\n") == b"data: a\n\n"
    assert not reader.is_done
    assert reader.feed(b"\n" + COMMENT + b'data: {"error":{}}\n\n') == b'data: b\n\ndata: {"error":{}}\n\n'
    assert reader.has_error
    assert reader.usage == Usage(5, 3)


def test_an_event_without_an_end_is_a_failure_not_a_memory() -> None:
    reader = EventFilter()
    for _ in range(16):
        assert reader.feed(b"x" * 65536) == b""
    with pytest.raises(ReplicaFailure, match="1048576 bytes"):
        reader.feed(b"x")


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (b'{"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}', Usage(1, 2)),
        (b'{"choices":[{}],"usage":null}', None),
        (b'{"data":[],"usage":{"prompt_tokens":4,"total_tokens":4}}', Usage(4, 0)),
        (b'{"tokens":[1,2]}', None),
    ],
)
def test_the_usage_of_a_whole_answer(body, usage) -> None:
    assert usage_of(body) == usage


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"choices":[]}', b'{"choices":[{}]', b'{"x":' + b"[" * 10_000, b"[]"],
)
def test_f15_what_is_no_answer(body) -> None:
    with pytest.raises(ReplicaFailure):
        usage_of(body)


@pytest.mark.parametrize("text", [b"{", b'{"prompt_tokens":' + b"[" * 100_000, b'{"x":"\xff"}', b'{"\xff":1}'])
def test_f15_a_usage_that_cannot_be_read_is_none(text) -> None:
    events = EventFilter()
    assert events.feed(b": usage " + text + b"\n\n") == b""
    assert events.usage in (None, Usage())
