from __future__ import annotations

import msgspec
import pytest

from argosy.evals.answer import Answer, error_text
from argosy.evals.records import RequestRecord


def chunk(text: str | None = None, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"id": "x", "choices": [choice], **more}) + b"\n\n"


USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,'
    b'"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def answer_of(
    *pieces: tuple[float, bytes], status: int = 200, kind: str = "text/event-stream; charset=utf-8"
) -> RequestRecord:
    record = RequestRecord(index=0, intended_at=0.0, chunk_times=[])
    answer = Answer(record)
    answer.head(status, kind)
    for at, piece in pieces:
        answer.body(piece, at)
    answer.finish(pieces[-1][0] if pieces else 0.0)
    return record


def test_a_whole_answer_with_its_times_and_usage() -> None:
    record = answer_of(
        (1.0, chunk("")), (2.0, chunk("a")), (3.0, chunk("b") + chunk("c")), (4.0, chunk(None, "stop") + USAGE + DONE)
    )
    assert record.error is None
    assert record.chunk_times == [2.0, 3.0, 3.0], "the empty first delta is not the first token"
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (7, 3, 4)
    assert (record.finish_reason, record.ended_at) == ("stop", 4.0)


def test_completions_reasoning_and_tool_calls_are_text_too() -> None:
    pieces = [
        b'data: {"choices":[{"text":"a","finish_reason":null}],"usage":null}\n\n',
        b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n',
    ]
    assert len(answer_of((1.0, b"".join(pieces) + DONE)).chunk_times) == 3


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_the_answer_does_not_depend_on_cuts_apart_from_times(cut: int) -> None:
    stream = chunk("a") + chunk("b", "length") + USAGE + DONE
    record = answer_of((1.0, stream[:cut]), (2.0, stream[cut:]))
    assert (len(record.chunk_times), record.completion_tokens, record.error) == (2, 3, None)


@pytest.mark.parametrize(
    ("pieces", "status", "error", "detail"),
    [
        ((chunk("a"),), 200, "truncated", "without finish_reason"),
        ((chunk(None, "stop"), DONE), 200, "empty", "no text"),
        ((chunk("a"), b'data: {"error":{"message":"engine died"}}\n\n'), 200, "stream_error", "engine died"),
        ((b'{"error":{"message":"queue full"}}',), 429, "http_429", "queue full"),
        ((b"<html>bad gateway</html>",), 502, "http_502", "<html>"),
        ((), 503, "http_503", ""),
    ],
)
def test_every_way_to_fail_is_told(pieces: tuple[bytes, ...], status: int, error: str, detail: str) -> None:
    record = answer_of(*((1.0, piece) for piece in pieces), status=status)
    assert record.error == error
    assert detail in record.error_detail


def test_a_finish_reason_without_done_is_an_answer() -> None:
    assert answer_of((1.0, chunk("a", "stop"))).error is None


def test_the_first_reason_of_a_failure_stays() -> None:
    answer = Answer(RequestRecord(index=0, intended_at=0.0, chunk_times=[]))
    answer.fail("timeout", "too long", 1.0)
    answer.fail("truncated", "closed", 2.0)
    assert (answer.record.error, answer.record.error_detail) == ("timeout", "too long")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":{"message":"a"}}', "a"),
        (b'{"error":"b"}', "b"),
        (b'{"object":"error","message":"c"}', "c"),
        (b'{"detail":[{"loc":1}]}', '[{"loc":1}]'),
        (b"\xff plain", "\ufffd plain"),
    ],
)
def test_error_text_finds_the_message_in_common_shapes(body: bytes, text: str) -> None:
    assert error_text(body) == text
