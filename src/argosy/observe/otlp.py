"""Spans by OpenTelemetry's own SDK, sent in batches from its own thread. Imported only when traces are asked for."""

from __future__ import annotations

from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import argosy
from argosy.observe.tracing import Value

_TRACES_PATH = "/v1/traces"
# An exporter that is away must not hold up the end of a process.
_EXPORT_SECONDS = 2.0
_PROPAGATOR = TraceContextTextMapPropagator()
_CLIENT_LEFT = 499


class RequestSpan:
    """A server span."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        self._operation = self._model = ""
        context = span.get_span_context()
        self.is_recording = span.is_recording()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def set(self, name: str, value: Value) -> None:
        """Say something of the request."""
        self._span.set_attribute(name, value)
        if name == "gen_ai.operation.name":
            self._operation = str(value)
        elif name == "gen_ai.request.model":
            self._model = str(value)

    def event(self, name: str, **facts: Value) -> None:
        """Say that something happened now."""
        self._span.add_event(name, facts)

    def end(self, method: str, route: str, status: int) -> None:
        """Name it, judge it, hand it over."""
        self._span.update_name(f"{self._operation} {self._model}" if self._operation else f"{method} {route}")
        self._span.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        )
        if status >= 500 or status == _CLIENT_LEFT:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class OtlpTracing:
    """Begins spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, traceparent: str) -> RequestSpan:
        """A span, as a child of the caller's if it named one. Whether it is kept, the caller's flag says."""
        context = _PROPAGATOR.extract({"traceparent": traceparent} if traceparent else {})
        return RequestSpan(self._tracer.start_span("request", context=context, kind=SpanKind.SERVER))


def open_otlp(endpoint: str, role: str) -> OtlpTracing:
    """To a collector, at `/v1/traces` unless the endpoint has a path of its own."""
    url = endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + _TRACES_PATH
    return traced_to(OTLPSpanExporter(url, timeout=_EXPORT_SECONDS), role)


def traced_to(exporter: SpanExporter, role: str) -> OtlpTracing:
    """To any exporter. Sent in batches of what fits a bounded queue; more is dropped, never waited for."""
    resource = Resource.create({"service.name": f"argosy-{role}", "service.version": argosy.__version__})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OtlpTracing(provider.get_tracer("argosy", argosy.__version__))
