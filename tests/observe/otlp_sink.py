"""A collector of traces on a loopback port: takes OTLP over HTTP, and shows the spans as plain values."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class SeenSpan(NamedTuple):
    """A span as it was sent; ids in hex."""

    role: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    facts: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    is_error: bool


class Sink:
    """What has come so far."""

    def __init__(self) -> None:
        self.spans: list[SeenSpan] = []
        self.paths: set[str] = set()
        self.url = ""
        self._came = threading.Condition()

    def take(self, path: str, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._came:
            self.paths.add(path)
            for group in request.resource_spans:
                role = facts_of(group.resource.attributes)["service.name"]
                for scope in group.scope_spans:
                    self.spans += [seen(role, span) for span in scope.spans]
            self._came.notify_all()

    def wait(self, count: int, seconds: float = 10) -> list[SeenSpan]:
        """The spans, once there are so many; fails if that takes longer."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.spans) >= count, seconds), self.spans
            return [*self.spans]


def facts_of(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def seen(role: str, span: Any) -> SeenSpan:
    return SeenSpan(
        role=role,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        facts=facts_of(span.attributes),
        events=[(event.name, facts_of(event.attributes)) for event in span.events],
        is_error=span.status.code == 2,
    )


@contextmanager
def collecting() -> Iterator[Sink]:
    """`with collecting() as sink:`; sink.url is the endpoint."""
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sink.take(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        sink.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield sink
        server.shutdown()
        thread.join()
