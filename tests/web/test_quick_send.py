"""A whole answer is one write; what is not plain takes uvicorn's way, and no header breaks an answer apart."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from argosy.web.quick_send import QuickSend, whole_head

pytestmark = pytest.mark.anyio

OWN = [(b"content-type", b"text/plain"), (b"content-length", b"2")]


class Wire(asyncio.Transport):
    """Remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True


class Answer:
    """A cycle of uvicorn's, and what was told when it was complete."""

    def __init__(self, method: str = "GET", *, keep_alive: bool = True) -> None:
        self.wire = Wire()
        self.num_complete = 0
        self.cycle = RequestResponseCycle(
            scope={"type": "http", "method": method},  # type: ignore[typeddict-item]
            transport=self.wire,
            flow=FlowControl(self.wire),
            logger=None,  # type: ignore[arg-type]
            access_logger=None,  # type: ignore[arg-type]
            access_log=False,
            default_headers=[(b"server", b"argosy")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self.complete,
        )
        self.send = QuickSend(self.cycle).send

    def complete(self) -> None:
        self.num_complete += 1


def start(headers: list[tuple[bytes, bytes]], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def test_a_whole_answer_is_one_write() -> None:
    answer = Answer()
    await answer.send(start(OWN))
    assert answer.wire.writes == []
    await answer.send(body(b"ok"))
    assert answer.wire.writes == [
        b"HTTP/1.1 200 OK\r\nserver: argosy\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
    ]
    assert answer.cycle.response_complete
    assert answer.num_complete == 1
    with pytest.raises(RuntimeError, match="already completed"):
        await answer.send(body(b"more"))


@pytest.mark.parametrize(
    ("method", "headers", "messages", "ending"),
    [
        ("HEAD", OWN, [body(b"ok")], b"\r\n\r\n"),
        ("GET", OWN, [body(b"o", more=True), body(b"k")], b"\r\n\r\nok"),
        ("GET", OWN[:1], [body(b"ok")], b"\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("GET", [*OWN, (b"connection", b"close")], [body(b"ok")], b"\r\nconnection: close\r\n\r\nok"),
    ],
)
async def test_what_is_not_plain_is_still_right(
    method: str, headers: list[tuple[bytes, bytes]], messages: list[dict[str, Any]], ending: bytes
) -> None:
    answer = Answer(method)
    await answer.send(start(headers))
    for message in messages:
        await answer.send(message)
    assert b"".join(answer.wire.writes).endswith(ending)
    assert answer.num_complete == 1


async def test_a_connection_that_shall_end_says_so_and_ends() -> None:
    answer = Answer(keep_alive=False)
    await answer.send(start(OWN))
    await answer.send(body(b"ok"))
    assert b"connection: close\r\n" in answer.wire.writes[0]
    assert answer.wire.is_closed


@pytest.mark.parametrize("content", [b"", b"o", b"okay"])
async def test_a_length_that_does_not_fit_is_an_error(content: bytes) -> None:
    answer = Answer()
    await answer.send(start(OWN))
    with pytest.raises(RuntimeError, match="Content-Length"):
        await answer.send(body(content))


async def test_an_application_that_fails_before_its_body_has_sent_nothing() -> None:
    answer = Answer()
    await answer.send(start(OWN))
    await answer.cycle.send_500_response()
    assert answer.wire.writes[0].startswith(b"HTTP/1.1 500")


@given(
    st.lists(st.tuples(st.sampled_from([b"x-a", b"x-b"]), st.binary(max_size=12)), max_size=4),
    st.integers(0, 10**6),
)
def test_no_value_breaks_a_head_apart(headers: list[tuple[bytes, bytes]], length: int) -> None:
    found = whole_head(200, [(b"server", b"argosy")], [*headers, (b"content-length", b"%d" % length)])
    if found is None:
        assert any(set(value) & set(b"\r\n\0") for _, value in headers)
        return
    head, announced = found
    assert announced == length
    assert head.count(b"\r\n") == len(headers) + 4
    assert head.endswith(b"\r\n\r\n")
