"""The metrics of TorchServe, in both of its label sets, with the queue length it never had; and handlers' own.

0.7.1 has three counters, labelled `uuid, model_name, model_version`. From 0.8 on they are labelled
`model_name, model_version, hostname`, and there are figures of the host and of the worker. A server speaks one set.
`model_version` is `default` where the client named none, as in the original. What an autoscaler should read is
`ts_queue_length`: a gauge, per version, sampled when scraped.

What handlers report comes under the names they chose, if `metrics.yaml` declares them, or if the operator lets
undeclared ones be found (`model_metrics_auto_detect`). Names, label names and the number of series are bounded (D-35).

Source: TorchServe 0.7.1 and 0.12, `ts/configs/metrics.yaml`, `frontend/.../metrics`; names and help texts are theirs.
"""

from __future__ import annotations

import logging
import re
import socket
import uuid
from collections.abc import Callable, Iterable

from argosy.core.errors import ArgosyError, Unavailable
from argosy.core.prediction import HandlerMetric, PredictRequest
from argosy.core.torchserve_spec import MetricsSet
from argosy.observe.metric import Metric, MetricKind, bare_counter, gauge
from argosy.observe.metrics import Counter, Gauge, Metrics

logger = logging.getLogger(__name__)

MAX_DETECTED = 200
NO_VERSION = "default"
HANDLER_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,127}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")
_OURS = ("ts_", "vllm:", "argosy_", "http_", "process_", "python_")
_US, _MS = 1e6, 1e3
_HOST_LEVEL = "Host"

_OLD_LABELS = ("uuid", "model_name", "model_version")
_NEW_LABELS = ("model_name", "model_version", "hostname")
_HOST_LABELS = ("Level", "Hostname")
_OLD_HELP = {
    "ts_inference_requests_total": "Total number of inference requests.",
    "ts_inference_latency_microseconds": "Cumulative inference duration in microseconds",
    "ts_queue_latency_microseconds": "Cumulative queue duration in microseconds",
}
_TS_UNITS = {
    "ts_inference_requests_total": "Count",
    "ts_inference_latency_microseconds": "Microseconds",
    "ts_queue_latency_microseconds": "Microseconds",
}
_RESPONSES = ("Requests2XX", "Requests4XX", "Requests5XX")
_HOST_GAUGES = {
    "QueueTime": "Milliseconds",
    "WorkerThreadTime": "Milliseconds",
    "CPUUtilization": "Percent",
    "MemoryUtilization": "Percent",
    "DiskUtilization": "Percent",
    "MemoryUsed": "Megabytes",
    "MemoryAvailable": "Megabytes",
    "DiskUsage": "Gigabytes",
    "DiskAvailable": "Gigabytes",
}
_QUEUE_HELP = "Requests that wait for a worker of this version now."


def _help(kind: str, unit: str) -> str:
    return f"Torchserve prometheus {kind} metric with unit: {unit}"


def torchserve_metrics(label_set: MetricsSet) -> tuple[Metric, ...]:
    """The rows of one label set, beside those every server has."""
    if label_set is MetricsSet.OLD:
        counters = (bare_counter(name, _TS_UNITS[name], help_, _OLD_LABELS) for name, help_ in _OLD_HELP.items())
        return (*counters, gauge("ts_queue_length", "requests", _QUEUE_HELP, _OLD_LABELS))
    return (
        *(bare_counter(name, unit, _help("counter", unit), _NEW_LABELS) for name, unit in _TS_UNITS.items()),
        gauge("ts_queue_length", "requests", _QUEUE_HELP, _NEW_LABELS),
        *(bare_counter(name, "Count", _help("counter", "Count"), _HOST_LABELS) for name in _RESPONSES),
        *(gauge(name, unit, _help("gauge", unit), _HOST_LABELS) for name, unit in _HOST_GAUGES.items()),
        gauge("WorkerLoadTime", "Milliseconds", _help("gauge", "Milliseconds"), ("WorkerName", *_HOST_LABELS)),
    )


def handler_row(name: str, unit: str, kind: str, dimensions: Iterable[str]) -> Metric | None:
    """The row of a handler's metric; None if its name, its kind or a dimension's cannot be exposed, or is taken."""
    labels = tuple(dict.fromkeys((*dimensions, "Hostname")))
    is_free = _NAME.fullmatch(name) and not name.startswith(_OURS) and kind in tuple(MetricKind)
    if not is_free or not all(map(_LABEL.fullmatch, labels)):
        return None
    return Metric(
        name=name,
        kind=MetricKind(kind),
        unit=unit,
        help=_help(kind, unit),
        labels=labels,
        buckets=HANDLER_BUCKETS if kind == MetricKind.HISTOGRAM else (),
        is_bare=kind == MetricKind.COUNTER,
    )


# TorchServe's own metrics.yaml declares these two; handlers report them without being told to.
BUILT_IN = (
    handler_row("HandlerTime", "ms", "gauge", ("ModelName", "Level")),
    handler_row("PredictionTime", "ms", "gauge", ("ModelName", "Level")),
)


class TorchServeMeters:
    """All `ts_*` and handlers' metrics of one server, over its `Metrics`.

    metrics: made from a table that includes `torchserve_metrics(label_set)`. declared: handlers' metrics that are known
    beforehand, `BUILT_IN` if no metrics.yaml replaces them.
    """

    def __init__(
        self,
        metrics: Metrics,
        label_set: MetricsSet,
        *,
        declared: Iterable[Metric | None] = BUILT_IN,
        auto_detect: bool = False,
    ) -> None:
        self.metrics = metrics
        self.hostname = socket.gethostname()
        self._default_dimensions = {"Hostname": self.hostname}
        self._label_set = label_set
        self._uuid = str(uuid.uuid4())
        self._detects = auto_detect
        self._handler_rows: dict[str, Metric | None] = {}
        for row in declared:
            if row is not None:
                self._declare(row)
        if label_set is MetricsSet.NEW:
            metrics.before_scrape(self._count_responses)

    def of_version(self, name: str, version: str) -> VersionMeters:
        """What one version of a model reports to; its series exist, at 0, from now on."""
        return VersionMeters(self, name, version)

    def watch_queues(self, queues: Callable[[], Iterable[tuple[str, str, int]]]) -> None:
        """Sample (model, version, requests that wait) at each scrape; versions that are gone lose their series."""

        def sample() -> None:
            self.metrics.clear("ts_queue_length")
            for name, version, length in queues():
                self.metrics.gauge("ts_queue_length", *self.labels(name, version)).set(length)

        self.metrics.before_scrape(sample)

    def labels(self, name: str, version: str) -> tuple[str, str, str]:
        """The label values of a model's series, in the set's order."""
        if self._label_set is MetricsSet.OLD:
            return (self._uuid, name, version)
        return (name, version, self.hostname)

    def host_gauge(self, name: str, value: float) -> None:
        """Set a figure of this host, where the label set has such figures."""
        self.host_cell(name).set(value)

    def host_cell(self, name: str, *labels: str) -> Gauge:
        """The cell of a figure of this host; labels: what stands before the level. Nobody sees it in the old set."""
        if self._label_set is MetricsSet.OLD:
            return Gauge()
        return self.metrics.gauge(name, *labels, _HOST_LEVEL, self.hostname)

    def forget_host_cell(self, name: str, *labels: str) -> None:
        """Show the figure no more; labels: as for `host_cell`."""
        self.metrics.forget(name, *labels, _HOST_LEVEL, self.hostname)

    def observe_handler(self, seen: HandlerMetric) -> None:
        """Take an observation of a handler's, if its metric is declared or may be found."""
        row = self._handler_rows.get(seen.name) or self._detected(seen)
        if row is None or seen.value != seen.value:
            return
        values = [seen.dimensions.get(label, self._default_dimensions.get(label, "")) for label in row.labels]
        if row.kind is MetricKind.HISTOGRAM:
            self.metrics.histogram(row.name, *values).observe(seen.value)
        elif row.kind is MetricKind.GAUGE:
            self.metrics.gauge(row.name, *values).set(seen.value)
        elif seen.value > 0:
            self.metrics.counter(row.name, *values).add(seen.value)

    def _detected(self, seen: HandlerMetric) -> Metric | None:
        if not self._detects or seen.name in self._handler_rows or len(self._handler_rows) >= MAX_DETECTED:
            return None
        row = handler_row(seen.name, seen.unit, seen.kind, sorted(seen.dimensions))
        if row is None or not self._declare(row):
            self._handler_rows[seen.name] = None
            logger.warning("a handler's metric cannot be exposed", extra={"metric": seen.name[:128]})
            return None
        return row

    def _declare(self, row: Metric) -> bool:
        try:
            self.metrics.declare(row)
        except ValueError:
            return False
        self._handler_rows[row.name] = row
        return True

    def _count_responses(self) -> None:
        totals = dict.fromkeys("245", 0.0)
        for (_, _, status), cell in self.metrics.counters("http_requests").items():
            if status[0] in totals:
                totals[status[0]] += cell.value
        for name in _RESPONSES:
            self.metrics.counter(name, _HOST_LEVEL, self.hostname).value = totals[name[-3]]


class VersionMeters:
    """What one version reports to (`serving.predictions.meters.PredictionMeters`): additions, no look-ups."""

    def __init__(self, meters: TorchServeMeters, name: str, version: str) -> None:
        self._meters = meters
        self._name = name
        self._version = version
        self._queue_time = meters.host_cell("QueueTime")
        self._call_time = meters.host_cell("WorkerThreadTime")
        self._by_request = {"": self._counters(NO_VERSION), version: self._counters(version)}

    def arrived(self, request: PredictRequest) -> None:
        """Count a request, whatever becomes of it."""
        self._of(request)[0].value += 1

    def ended(
        self, request: PredictRequest, queue_seconds: float, inference_seconds: float, error: ArgosyError | None
    ) -> None:
        """Add up how long it waited, and how long it was worked on."""
        _, inference, queue = self._of(request)
        inference.value += inference_seconds * _US
        queue.value += queue_seconds * _US
        if not isinstance(error, Unavailable):  # One that was refused has not waited; it would hide who does.
            self._queue_time.value = queue_seconds * _MS

    def batch(self, size: int, seconds: float) -> None:
        """Note how long the worker was busy with a call."""
        self._call_time.value = seconds * _MS

    def worker_loaded(self, seat: int, seconds: float) -> None:
        """Note how long a worker's start took."""
        self._meters.host_cell("WorkerLoadTime", self._worker(seat)).set(seconds * _MS)

    def worker_left(self, seat: int) -> None:
        """Forget how long its start took: seats are numbered on, so there would be more and more of them (D-35)."""
        self._meters.forget_host_cell("WorkerLoadTime", self._worker(seat))

    def version_left(self, *, is_last: bool) -> None:
        """Forget what was counted for it: names that come and go would be more and more series (D-35)."""
        for shown_version in (self._version, *([NO_VERSION] if is_last else [])):
            labels = self._meters.labels(self._name, shown_version)
            for name in _TS_UNITS:
                self._meters.metrics.forget(name, *labels)

    def handler_metric(self, metric: HandlerMetric) -> None:
        """Take what the handler reports."""
        self._meters.observe_handler(metric)

    def _worker(self, seat: int) -> str:
        return f"W-{seat}-{self._name}_{self._version}"

    def _of(self, request: PredictRequest) -> tuple[Counter, Counter, Counter]:
        return self._by_request.get(request.requested_version) or self._by_request[self._version]

    def _counters(self, shown_version: str) -> tuple[Counter, Counter, Counter]:
        labels = self._meters.labels(self._name, shown_version)
        requests, inference, queue = (self._meters.metrics.counter(name, *labels) for name in _TS_UNITS)
        return requests, inference, queue


def only(text: bytes, names: Iterable[str]) -> bytes:
    """The part of an exposition that has these samples, as `name[]` asks for; their help and type come with them."""
    wanted = {name.encode() for name in names}
    kept: list[bytes] = []
    comments: list[bytes] = []
    for line in text.splitlines(keepends=True):
        if line.startswith(b"#"):
            comments = [*comments, line] if line.startswith(b"# TYPE") else [line]
            if line.startswith(b"# TYPE") and line.split(b" ")[2] in wanted:
                kept += comments
                comments = []
        elif re.split(rb"[{ ]", line, maxsplit=1)[0] in wanted:
            kept += [*comments, line]
            comments = []
    return b"".join(kept)
