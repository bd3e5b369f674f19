"""One connection: uvicorn's httptools protocol with limits on time, size and number, and an end for who goes away.

What it adds: a time limit for a request's head and body (slowloris, D-25), a size limit for the head, a limit on
connections and on pipelined requests, an end to readers that let our buffer stand full (F-06), errors in the API's own
shape, and the abort law's first link: when the client is gone, the task that answers it is cancelled at once.

A full house does not shut the door: a newcomer takes the place of the connection that has kept us waiting longest for
a request, so idle connections, however many, keep nobody out. Only answers being given are never cut for room.
Parsing itself is llhttp's, strict (D-24).
"""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Callable
from typing import Any

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from argosy.core.web_spec import LimitsSpec
from argosy.observe.metrics import Metrics
from argosy.web.last_requests import num_unread_bytes
from argosy.web.quick_send import QuickSend

_MAX_HEADERS = 100
_LOOK_AGAIN_SECONDS = 0.01
_MAX_PIPELINED = 64  # Each costs a few kilobytes, and a packet of 64 KiB can hold thousands.
_TYPES = {
    400: "BadRequestError",
    408: "RequestTimeoutError",
    431: "RequestHeaderFieldsTooLargeError",
    503: "ServiceUnavailableError",
}


def openai_rejection(status: int, message: str) -> bytes:
    """The body in OpenAI's shape."""
    detail = {"message": message, "type": _TYPES[status], "param": None, "code": status}
    return msgspec.json.encode({"error": detail, "message": message, "object": "error"})


class GuardedState(ServerState):
    """What all connections share: uvicorn's state, our limits and metrics.

    rejection: the JSON body of an answer given without the application, from status and message.
    """

    def __init__(self, limits: LimitsSpec, metrics: Metrics, rejection: Callable[[int, str], bytes]) -> None:
        super().__init__()
        self.limits = limits
        self.rejection = rejection
        self.gone = metrics.counter("argosy_client_disconnects", "gone")
        self.stalled = metrics.counter("argosy_client_disconnects", "stalled")
        self.is_ending = False  # Every answer is its connection's last.
        # Connections that owe us a whole request, the one that has for longest first.
        self.waiting: dict[GuardedProtocol, None] = {}

    def guarded(self) -> list[GuardedProtocol]:
        """The connections there are now."""
        return [each for each in self.connections if isinstance(each, GuardedProtocol)]


class GuardedProtocol(HttpToolsProtocol):
    """A connection that cannot hold the server up."""

    def __init__(
        self,
        config: Config,
        server_state: GuardedState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._state = server_state
        self._limits = server_state.limits
        self._read_timer: TimerHandle | None = None
        self._idle_timer: TimerHandle | None = None
        self._idle_since: float | None = None
        self._stall_timer: TimerHandle | None = None
        self._answering: asyncio.Task[None] | None = None
        self._answered: RequestResponseCycle | None = None
        self._in_head = True
        self._head_bytes = 0
        self._rejection = 400

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse one connection too many; give the others a time limit for their first request."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections and not self._make_room():
            self._reject(503, f"the server answers on {self._limits.max_connections} connections: try again later")
            return
        self._state.waiting[self] = None
        self._idle_since = self.loop.time()
        self._await_input(self._limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: cancel its answer, now."""
        self._stop_timers()
        self._state.waiting.pop(self, None)
        cycle = self.cycle
        is_cut = cycle is not None and not cycle.response_complete
        for queued, _ in self.pipeline:
            queued.disconnected = True
        if self._answered is not None:
            self._answered.disconnected = True
        super().connection_lost(exc)
        if is_cut and self._answering is not None and not self._answering.done():
            self._state.gone.add()
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        """Feed the parser. What is not complete then has a time limit; most requests come whole, and need none."""
        if self.transport.is_closing():
            return
        self._idle_since = None
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self._limits.max_header_bytes:
            self._too_large()
        elif self._read_timer is None and not self._in_head:
            self._await_input(self._limits.body_seconds)
        elif self._read_timer is None and self._head_bytes:
            self._await_input(self._limits.header_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Bound the number and the size of headers, however they are cut into packets."""
        self._parsed_bytes += len(name) + len(value)
        if len(self.headers) >= _MAX_HEADERS or self._parsed_bytes > self._limits.max_header_bytes:
            self._rejection = 431
            raise httptools.HttpParserInvalidMethodError("too many or too large headers")
        super().on_header(name, value)

    def on_message_begin(self) -> None:
        """A new request starts."""
        super().on_message_begin()
        self._in_head = True
        self._parsed_bytes = 0

    def on_headers_complete(self) -> None:
        """The head is complete; a body that does not come with it gets a time limit of its own."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise httptools.HttpParserInvalidMethodError("too many pipelined requests")
        self._in_head = False
        self._head_bytes = 0
        self._stop_read_timer()
        super().on_headers_complete()
        if self._state.is_ending:
            self.end_after_answer()

    def on_message_complete(self) -> None:
        """The request is complete: nothing more to wait for."""
        self._stop_read_timer()
        self._in_head = True
        super().on_message_complete()
        if self.cycle.response_complete:
            self._begin_idling()  # answered before its body was here
        else:
            self._state.waiting.pop(self, None)

    def on_response_complete(self) -> None:
        """The answer is out: the next request that is here already is answered, else we wait a while for one."""
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            if self._state.is_ending:
                self.end_after_answer()
        else:
            self._begin_idling()

    def end_after_answer(self) -> None:
        """The answer to the last request that is here says `Connection: close`, if it has not begun yet."""
        if self._answered is not None and not self._answered.response_started:
            self._answered.keep_alive = bool(self.pipeline)

    def end_if_silent(self, seconds: float) -> None:
        """Close the connection if nothing was heard on it for so long, and nothing lies there unread."""
        if self._idle_since is None or self.loop.time() - self._idle_since < seconds or self.transport.is_closing():
            return
        if not num_unread_bytes(self.transport):
            self.transport.close()

    def pause_writing(self) -> None:
        """The client reads slower than we write: it has a while to catch up."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self._limits.stall_seconds, self._abort_stalled)

    def resume_writing(self) -> None:
        """It caught up."""
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this when the parser refuses what it reads."""
        if self.transport.is_closing():
            return
        if self._rejection == 431:
            self._too_large()
        else:
            self._reject(400, "the request is not valid HTTP/1.1: send it again with a standard client")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, QuickSend(cycle).send)
            except asyncio.CancelledError:
                if not cycle.disconnected:
                    raise

        self._answered = cycle
        task = self.loop.create_task(cycle.run_asgi(answer))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._answering = task

    def _await_input(self, seconds: float) -> None:
        self._stop_read_timer()
        self._read_timer = self.loop.call_later(seconds, self._input_late)

    def _input_late(self) -> None:
        self._read_timer = None
        if self.transport.is_closing():
            return
        if self._is_next_request():
            self._await_input(self._limits.header_seconds)
        elif self._in_head and self._head_bytes == 0:
            self.transport.close()
        else:
            self._reject(408, "the request did not arrive in time: send it again, faster")

    def _begin_idling(self) -> None:
        self._state.waiting[self] = None
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self._limits.keep_alive_seconds, self._check_idle)

    def _check_idle(self) -> None:
        """Close what has been idle too long. One timer looks now and then, and none is set for each answer."""
        self._idle_timer = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left = self._idle_since + self._limits.keep_alive_seconds - self.loop.time()
        if left <= 0 and not num_unread_bytes(self.transport):
            self.transport.close()
        else:  # A request that came in this very moment is read before the next look.
            self._idle_timer = self.loop.call_later(max(left, _LOOK_AGAIN_SECONDS), self._check_idle)

    def _is_next_request(self) -> bool:
        """Whether what is late comes after a request that is still being answered, which must not suffer for it."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return is_answering and (self._in_head or bool(self.pipeline))

    def _make_room(self) -> bool:
        """Close the connection that has kept us waiting longest. False if all are being answered."""
        longest = next(iter(self._state.waiting), None)
        if longest is None:
            return False
        del self._state.waiting[longest]
        longest.transport.close()
        return True

    def _abort_stalled(self) -> None:
        self._state.stalled.add()
        self.transport.abort()

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _stop_timers(self) -> None:
        self._stop_read_timer()
        for timer in (self._stall_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._stall_timer = self._idle_timer = None

    def _too_large(self) -> None:
        self._reject(
            431,
            f"the request's head is larger than {self._limits.max_header_bytes} bytes or has more than "
            f"{_MAX_HEADERS} headers: send fewer",
        )

    def _reject(self, status: int, message: str) -> None:
        """Answer without the application, and close. Never inside another answer: then only close."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = self._state.rejection(status, message)
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
