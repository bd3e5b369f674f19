"""uvicorn's ASGI `send`, with shorter ways for what is sent most: a whole answer, and a piece of a stream.

A whole answer is one write: its head waits for its body, which follows at once, and is checked as one text. uvicorn
writes the two apart and searches every header twice, which costs as much as a small handler. A piece of a stream goes
to a client that keeps up without a coroutine: each token of each stream comes through here.

What is not plain (a HEAD, a `Connection` header, a length that does not fit, a client that lags) goes uvicorn's way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_Headers = Iterable[tuple[bytes, bytes]]


class QuickSend:
    """One answer's `send`."""

    __slots__ = ("_cycle", "_flow", "_head", "_send", "_start", "_write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._write = cycle.transport.write
        self._send = cycle.send
        self._start: Any = None  # the message whose head waits
        self._head: tuple[bytes, int] = (b"", 0)

    def send(self, message: Any) -> Awaitable[None]:
        """An ASGI `send`: to be awaited at once."""
        if self._start is not None:
            return self._send_waiting(message)
        cycle = self._cycle
        if message["type"] == "http.response.start":
            if cycle.keep_alive and not cycle.disconnected and not cycle.response_started:
                head = whole_head(message["status"], cycle.default_headers, message.get("headers", ()))
                if head is not None and cycle.scope["method"] != "HEAD":
                    self._start, self._head = message, head
                    return _SENT
        elif message.get("more_body") and self._is_plain_piece(cycle):
            if body := message.get("body"):
                self._write(b"%x\r\n%b\r\n" % (len(body), body))
            return _SENT
        return self._send(message)

    def _is_plain_piece(self, cycle: RequestResponseCycle) -> bool:
        return bool(
            cycle.chunked_encoding
            and not (cycle.response_complete or cycle.disconnected or self._flow.write_paused)
            and cycle.scope["method"] != "HEAD"
        )

    def _send_waiting(self, message: Any) -> Awaitable[None]:
        """The body after a head that waits: both in one write, if this is all of it."""
        start, (head, length) = self._start, self._head
        self._start = None
        cycle = self._cycle
        body = message.get("body", b"")
        is_whole = message["type"] == "http.response.body" and not message.get("more_body") and len(body) == length
        if not is_whole or cycle.disconnected or self._flow.write_paused:
            return self._send_both(start, message)
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.chunked_encoding = False
        self._write(head + body)
        cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()
        return _SENT

    async def _send_both(self, start: Any, message: Any) -> None:
        await self._send(start)
        await self._send(message)


def whole_head(status: int, default: _Headers, own: _Headers) -> tuple[bytes, int] | None:
    """The head of an answer, and the length of the body it announces; None if it is not plain.

    Names are lower-case, as ASGI asks. A header that would break the head apart shows in the number of its line ends.
    """
    headers = [*default, *own]
    named = dict(headers)
    length = named.get(b"content-length", b"")
    if not length.isdigit() or b"connection" in named or b"transfer-encoding" in named:
        return None
    head = STATUS_LINE[status] + b"\r\n".join([b": ".join(header) for header in headers]) + b"\r\n\r\n"
    num_lines = len(headers) + 2
    if not head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n") == num_lines or b"\0" in head:
        return None
    return head, int(length)


class _Sent:
    """An awaitable that is over already."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return _NOTHING


_NOTHING: Generator[None, None, None] = (None for _ in ())
_SENT = _Sent()
