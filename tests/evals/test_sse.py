from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.evals.sse import MAX_EVENT_BYTES, MalformedStream, SseReader

STREAM = (
    b": a comment\n\n"
    b'data: {"a": "\xc3\xa4"}\n\n'
    b"event: error\r\ndata:no blank\r\n\r\n"
    b"data: one\ndata: two\nid: 7\n\n"
    b"data:  two blanks\r\rdata\n\n"
    b"data: [DONE]\n\n"
    b"data: never finished"
)
EVENTS = [b'{"a": "\xc3\xa4"}', b"no blank", b"one\ntwo", b" two blanks", b"[DONE]"]


def read(chunks: list[bytes]) -> list[bytes]:
    reader = SseReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


def test_events_of_a_stream_in_one_piece() -> None:
    assert read([STREAM]) == EVENTS


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_events_do_not_depend_on_where_the_stream_is_cut(cut: int) -> None:
    assert read([STREAM[:cut], STREAM[cut:]]) == EVENTS


def test_events_of_a_stream_byte_by_byte() -> None:
    assert read([STREAM[at : at + 1] for at in range(len(STREAM))]) == EVENTS


@given(
    payloads=st.lists(st.binary(min_size=1).filter(lambda b: b"\n" not in b and b"\r" not in b), max_size=6),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_any_payloads_survive_any_cuts(payloads: list[bytes], line_end: bytes, cuts: list[int]) -> None:
    stream = b"".join(b"data: " + payload + line_end * 2 for payload in payloads)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    assert read([stream[a:b] for a, b in pairwise(edges)]) == payloads


def feed_without_end(reader: SseReader) -> None:
    for _ in range(MAX_EVENT_BYTES // 65536 + 2):
        reader.feed(b"data: " + b"x" * 65536)


def test_an_endless_event_is_refused() -> None:
    reader = SseReader()
    with pytest.raises(MalformedStream, match="larger than"):
        feed_without_end(reader)
