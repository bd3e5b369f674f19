"""The client's side of a request: an ASGI response that asks a replica, and passes on what comes.

Nothing is sent before a replica has sent something worth it: the first piece of a stream, or a whole answer that was
checked. Until then any failure can still become another try, or a proper status. Afterwards a failure is an error
event, and no `[DONE]` (docs/errors.md).

The abort law across processes: a client that leaves cancels this task (`web/http_protocol.py`), which closes the
answer, which closes the connection to the replica, which cancels the generation there. A client that reads slowly
holds up `send`, so the answer is not read, so the replica stops; after `stall_seconds` the connection is cut (F-06).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from argosy.core.errors import ArgosyError, DeadlineExceeded, ReplicaError
from argosy.gateway.accounts import Accounts
from argosy.gateway.attempt import Attempt
from argosy.gateway.call import Call
from argosy.gateway.dispatch import Dispatcher
from argosy.gateway.response_cache import CachedAnswer, CacheScope, Lead, cache_key
from argosy.gateway.shadow import Shadows
from argosy.gateway.spans import write_span
from argosy.gateway.traffic_split import choose_revision
from argosy.gateway.transport import Answer, FailureKind, Headers, ReplicaFailure
from argosy.gateway.usage import EventFilter, usage_of
from argosy.web.errors import error_event

# An answer in one piece is kept back up to this size, to be checked; a longer one is passed on as it comes.
WHOLE_BYTES = 1024 * 1024
# Longest wait for somebody else's answer to the same request.
CACHE_WAIT_SECONDS = 60.0
# What clients get of a replica's headers. The others are about the connection, or the edge writes them.
_PASSED_ON = frozenset({b"content-type", b"cache-control", b"x-accel-buffering", b"retry-after"})

ListHeaders = list[tuple[bytes, bytes]]


class RelayParts(msgspec.Struct, frozen=True, kw_only=True):
    """What all relays of a gateway share. open_relays: those under way."""

    dispatcher: Dispatcher
    shadows: Shadows
    accounts: Accounts
    clock: Callable[[], float]
    open_relays: set[Relay]


class Sink:
    """Writes an answer to an ASGI client, and to a second reader if `lead` is set: the response cache."""

    def __init__(self, send: Send, headers: ListHeaders) -> None:
        self._send = send
        self.headers = headers  # the gateway's own, for every answer
        self.status = 0
        self.content_type = b""
        self.is_stream = False
        self.lead: Lead | None = None

    async def start(self, status: int, headers: ListHeaders) -> None:
        """Send the head."""
        self.status, self.content_type = status, _header(headers, b"content-type")
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *self.headers]})

    async def write(self, body: bytes) -> None:
        """Send some of the body; waits while the client is behind."""
        if self.lead is not None:
            self.lead.feed(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        """Send the last of the body."""
        if self.lead is not None:
            self.lead.feed(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


class Relay(Response):
    """One call, answered. Cancels: the replica's connection is closed."""

    def __init__(self, call: Call, parts: RelayParts) -> None:
        super().__init__()
        self._call = call
        self._parts = parts
        self._clock = parts.clock
        self._sink: Sink | None = None
        self._attempt: Attempt | None = None
        self._limit: asyncio.Timeout | None = None
        self._ending: ArgosyError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Raises: any ArgosyError, if no byte has been sent."""
        parts, call = self._parts, self._call
        account, is_cut = parts.accounts.open(call), True
        headers = [(b"x-argosy-service", call.service.name.encode()), *parts.accounts.headers(call.caller.principal)]
        sink = self._sink = Sink(send, headers)
        parts.open_relays.add(self)
        try:
            async with asyncio.timeout(self._seconds_left()) as self._limit:
                await self._answer(sink, _header(scope["headers"], b"cache-control"))
            is_cut = False
        except TimeoutError:
            await self._end_with(sink, self._ending or self._deadline_exceeded(), scope["path"])
        except ReplicaFailure as failure:
            is_cut = False
            await self._end_with(sink, self._told(failure), scope["path"])
        finally:
            parts.open_relays.discard(self)
            account.close(self._attempt, is_cut=is_cut)
            write_span(call, self._attempt)

    async def _answer(self, sink: Sink, cache_control: bytes) -> None:
        """From the cache, or from a replica."""
        cache, call = self._call.service.cache, self._call
        key = None
        if cache is not None and (revision := _likely_revision(call)):
            scope = CacheScope(
                principal=call.caller.principal.name, service=call.service.name, revision=revision, path=call.path
            )
            key = cache_key(scope, call.body, cache_control)
        if cache is None or key is None:
            await self._ask(sink)
            return
        found = cache.find(key, self._clock()) or await cache.join(key, CACHE_WAIT_SECONDS)
        if isinstance(found, CachedAnswer):
            call.service.cache_hits += 1
            await _send_kept(found, sink)
            return
        sink.headers.append((b"x-cache", b"miss"))
        if found is None:
            await self._ask(sink)
            return
        with found as lead:
            sink.lead = lead
            await self._ask(sink)
            is_from = self._attempt.state.endpoint.revision if self._attempt is not None else ""
            if sink.status == 200 and is_from == revision:
                lead.complete(sink.content_type, self._clock())

    async def _ask(self, sink: Sink) -> None:
        self._parts.shadows.offer(self._call)
        await self._parts.dispatcher.run(self._call, self)

    @property
    def has_started(self) -> bool:
        """Whether the client has a byte."""
        return self._sink is not None and self._sink.status > 0

    @property
    def is_late(self) -> bool:
        """Whether the deadline ends it now."""
        limit = self._limit.when() if self._limit is not None and self._ending is None else None
        return limit is not None and limit <= asyncio.get_running_loop().time()

    def stop(self, error: ArgosyError) -> None:
        """End it now with this error: the gateway is shutting down."""
        if self._limit is not None and self._ending is None:
            self._ending = error
            self._limit.reschedule(asyncio.get_running_loop().time())

    def asked(self, attempt: Attempt) -> None:
        """A replica is being asked: from here, leaving costs."""
        self._attempt = attempt

    async def deliver(self, answer: Answer, attempt: Attempt) -> None:
        """Pass an answer on. Raises: ReplicaFailure."""
        assert self._sink is not None
        if _header(answer.headers, b"content-type").startswith(b"text/event-stream"):
            await self._stream(answer, attempt, self._sink)
        else:
            await self._whole(answer, attempt, self._sink)

    async def _stream(self, answer: Answer, attempt: Attempt, sink: Sink) -> None:
        events, clock = EventFilter(), self._clock
        piece = await answer.read()
        last_at = clock()
        if not piece:
            raise ReplicaFailure(FailureKind.INVALID, "the replica's stream is empty")
        sink.is_stream = True
        await sink.start(answer.status, _head(answer, attempt))
        try:
            while piece:
                last_at = clock()
                if passed := events.feed(piece):
                    if attempt.first_at is None and b"data:" in passed:
                        attempt.first_byte(last_at)
                    attempt.num_events += passed.count(b"\n\n")
                    await sink.write(passed)
                piece = await answer.read()
        except ReplicaFailure:
            if not events.is_done:
                raise
        attempt.usage = events.usage
        if events.is_done:
            attempt.streamed(last_at, clock())
        else:
            failure = ReplicaFailure(FailureKind.RESET, "the replica ended its stream before `[DONE]`")
            if not events.has_error:
                raise failure
            attempt.failed(failure, clock())  # it told the client why itself, so that is the one ending
        await sink.end()

    async def _whole(self, answer: Answer, attempt: Attempt, sink: Sink) -> None:
        body = b""
        while len(body) <= WHOLE_BYTES:
            piece = await answer.read()
            if not piece:
                break
            body = body + piece if body else piece
        else:
            await self._long(body, answer, attempt, sink)
            return
        self._judge(answer.status, body, attempt)
        length = (b"content-length", str(len(body)).encode())
        await sink.start(answer.status, [*_head(answer, attempt), length])
        await sink.end(body)

    async def _long(self, begun: bytes, answer: Answer, attempt: Attempt, sink: Sink) -> None:
        """An answer too long to be kept back: embeddings by the thousand."""
        await sink.start(answer.status, _head(answer, attempt))
        await sink.write(begun)
        while piece := await answer.read():
            await sink.write(piece)
        attempt.answered(self._clock())
        await sink.end()

    def _judge(self, status: int, body: bytes, attempt: Attempt) -> None:
        """The attempt's verdict on a whole answer. Raises: ReplicaFailure if it is none."""
        now = self._clock()
        if status == 429:
            attempt.overloaded(now, is_final=True)
        elif status >= 500:
            attempt.failed(ReplicaFailure(FailureKind.RESET, f"the replica answered {status}"), now)
        elif status >= 400:
            attempt.refused_caller(now)
        else:
            attempt.usage = usage_of(body)
            attempt.answered(now)

    async def _end_with(self, sink: Sink, error: ArgosyError, path: str) -> None:
        """After the first byte of a stream an error is the last event; before it, the edge makes a response of it.

        A whole answer that is cut has no place for words: the connection is closed before its announced end.
        """
        self._limit = None  # the end has begun: `stop` has nothing left to end
        if not sink.is_stream:
            raise error
        await sink.end(error_event(error, path))

    def _told(self, failure: ReplicaFailure) -> ReplicaError:
        """What a client reads: the replica by its name, never its address."""
        name = self._attempt.state.endpoint.replica if self._attempt is not None else "none"
        return ReplicaError(f"{failure.message} (replica {name}): send the request again")

    def _seconds_left(self) -> float | None:
        deadline = self._call.service.route.policy.deadline_seconds
        return None if deadline is None else max(0.0, self._call.arrived_at + deadline - self._clock())

    def _deadline_exceeded(self) -> DeadlineExceeded:
        seconds = self._call.service.route.policy.deadline_seconds
        return DeadlineExceeded(
            f"the request did not finish within the {seconds:g} s that {self._call.service.name!r} allows: "
            "ask for fewer tokens, or raise the service's gateway.deadline_seconds"
        )


def _header(headers: Headers, wanted: bytes) -> bytes:
    for name, value in headers:
        if name == wanted:
            return value
    return b""


def _head(answer: Answer, attempt: Attempt) -> ListHeaders:
    """What of a replica's head the client gets, and who answered."""
    endpoint = attempt.state.endpoint
    return [
        *[header for header in answer.headers if header[0] in _PASSED_ON],
        (b"x-argosy-revision", endpoint.revision.encode()),
        (b"x-argosy-replica", endpoint.replica.encode()),
    ]


def _likely_revision(call: Call) -> str:
    """The revision whose kept answers may be given: the one that the weights choose, whether it runs now or not."""
    if call.revision:
        return call.revision
    chosen = choose_revision(call.service.route.revisions, call.draw, call.sticky)
    return chosen.revision if chosen is not None else ""


async def _send_kept(answer: CachedAnswer, sink: Sink) -> None:
    sink.headers.append((b"x-cache", b"hit"))
    length = (b"content-length", str(len(answer.body)).encode())
    await sink.start(200, [(b"content-type", answer.content_type), length])
    await sink.end(answer.body)
