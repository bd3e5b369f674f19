"""Traces, for those who ask: one span per request on every server it passes, in the conventions of OpenTelemetry.

    client ─▶ gateway (span, retries as events) ─▶ replica (child span: queue, prefill, decode) ─▶ OTLP collector

Off unless an endpoint is given, and then nothing is imported and a request pays one look at a context variable. The
edge begins and ends a span; whoever knows something of the request writes it into `current_span`. Neither prompts nor
answers are ever written there. The trace crosses processes in the `traceparent` header.

Source: OpenTelemetry semantic conventions, HTTP and GenAI; W3C Trace Context.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from argosy.core.errors import SpecError
from argosy.core.plugins import resolve

Value = str | int | float | bool

_EXPORTERS = {"otlp": "argosy.observe.otlp:open_otlp"}


class Span(Protocol):
    """One request on one server. is_recording: whether it is worth gathering something for it."""

    is_recording: bool
    traceparent: str

    def set(self, name: str, value: Value) -> None:
        """Say something of the request."""
        ...

    def event(self, name: str, **facts: Value) -> None:
        """Say that something happened now."""
        ...

    def end(self, method: str, route: str, status: int) -> None:
        """The response has been sent, or the client has left."""
        ...


class NoSpan:
    """Takes everything and keeps nothing."""

    is_recording = False
    traceparent = ""

    def set(self, name: str, value: Value) -> None:
        """Nothing."""

    def event(self, name: str, **facts: Value) -> None:
        """Nothing."""

    def end(self, method: str, route: str, status: int) -> None:
        """Nothing."""


NO_SPAN = NoSpan()
current_span: ContextVar[Span] = ContextVar("argosy_span", default=NO_SPAN)


class Tracing(Protocol):
    """Where spans come from."""

    def begin(self, traceparent: str) -> Span:
        """A span of a request that came with this well-formed header, or with none ("")."""
        ...


def open_tracing(endpoint: str | None, role: str) -> Tracing | None:
    """Spans that go to an OTLP collector over HTTP; None without one. role: replica, gateway or control.

    What is not sent when the process ends is sent then. Raises: SpecError.
    """
    if endpoint is None:
        return None
    if not endpoint.startswith(("http://", "https://")):
        raise SpecError(f"OTLP endpoint {endpoint!r} is no URL: write it as in http://localhost:4318")
    try:
        opened: Tracing = resolve(_EXPORTERS, "otlp", "trace exporter")(endpoint, role)
    except ImportError as exc:
        raise SpecError(f"--otlp-endpoint needs OpenTelemetry ({exc}): run `pip install 'argosy[otel]'`") from exc
    return opened
