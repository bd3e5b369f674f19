"""One request and its response on their way through the edge: its ids, its limits, the headers every response has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from argosy.core.errors import PayloadTooLarge
from argosy.observe.trace import (
    current_request_id,
    current_traceparent,
    request_id_from,
    traceparent_from,
    valid_traceparent,
)
from argosy.observe.tracing import NO_SPAN, Span, Tracing, current_span
from argosy.web.access import Head

Headers = tuple[tuple[bytes, bytes], ...]

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
STRICT_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_LINGER_SECONDS = 1.0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every exchange of a server. headers: of each response that does not set them itself."""

    max_body_bytes: int
    headers: Headers
    closes_on_error: bool


class Exchange:
    """One request and its response on their way through the edge."""

    __slots__ = (
        "_remaining", "_send", "_terms", "_traceparent", "granted_origin", "must_close", "receive",
        "receive_body", "request_id", "scope", "span", "started", "status",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, terms: Terms) -> None:
        self.scope = scope
        self.receive = receive
        self.receive_body = receive
        self.started = time.monotonic()
        self.request_id = ""
        self.status = 0
        self.granted_origin: str | None = None
        self.must_close = False
        self.span: Span = NO_SPAN
        self._traceparent = ""
        self._send = send
        self._terms = terms
        self._remaining = terms.max_body_bytes

    def identify(self, head: Head) -> None:
        """Take over the caller's ids if they are well-formed."""
        sent = head.get(b"x-request-id")
        self.request_id = request_id_from(sent.decode("latin-1") if sent else None)
        current_request_id.set(self.request_id)
        trace = head.get(b"traceparent")
        if trace:
            self._traceparent = traceparent_from(trace.decode("latin-1"))
            current_traceparent.set(self._traceparent)

    def trace(self, tracing: Tracing, head: Head) -> None:
        """Begin a span, as a child of the caller's; whoever answers may write into it, and pass the trace on."""
        sent = head.get(b"traceparent")
        self.span = tracing.begin(valid_traceparent(sent.decode("latin-1") if sent else None))
        self.span.set("argosy.request_id", self.request_id)
        current_span.set(self.span)
        self._traceparent = self.span.traceparent
        current_traceparent.set(self._traceparent)

    def limit_body(self, length: int | None) -> None:
        """Refuse a body that is, or turns out, too large. Raises: PayloadTooLarge."""
        if length is None:
            self.receive_body = self._receive_counted
        elif length > self._terms.max_body_bytes:
            raise self._too_large(length)

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on; the first carries our headers. Not a coroutine: each token comes through here."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._headers(message.get("headers") or [])
        return self._send(message)

    async def send_and_linger(self, message: Message) -> None:
        """Send, but hear the rest of the body out, for a moment, before the connection is closed.

        To close a connection with unread bytes resets it, and the client loses the answer with them.
        Cancels: closes at once. Source: RFC 9112 §9.6.
        """
        if message["type"] != "http.response.body" or message.get("more_body"):
            await self.send(message)
            return
        await self.send({**message, "more_body": True})
        if b"expect" not in dict(self.scope["headers"]):
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    while (await self.receive()).get("more_body"):
                        pass
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _receive_counted(self) -> Message:
        message = await self.receive()
        self._remaining -= len(message.get("body", b""))
        if self._remaining < 0:
            raise self._too_large(None)
        return message

    def _too_large(self, length: int | None) -> PayloadTooLarge:
        size = f"{length} bytes" if length is not None else "larger"
        return PayloadTooLarge(
            f"the request body is {size}, and this server reads at most {self._terms.max_body_bytes} "
            "bytes: send less, or start it with --max-body-bytes"
        )

    def _headers(self, headers: Any) -> list[tuple[bytes, bytes]]:
        own = [*headers, *_SECURITY_HEADERS, (b"x-request-id", self.request_id.encode())]
        given = dict(headers)
        own += [each for each in self._terms.headers if each[0] not in given]
        if self._traceparent:
            own.append((b"traceparent", self._traceparent.encode()))
        if self.granted_origin:
            own.append((b"access-control-allow-origin", self.granted_origin.encode()))
            own.append((b"access-control-expose-headers", b"x-request-id, retry-after"))
            own.append((b"vary", b"origin"))
        if self.must_close or (self.status >= 400 and self._terms.closes_on_error):
            own.append((b"connection", b"close"))
        return own
