"""Every metric of Argosy, in one table, and the cells that hold their values.

Names, labels and buckets are vLLM's where vLLM has them, so that routers, autoscalers and dashboards made for it work
unchanged. Values live in plain cells (an attribute addition, a bisection) instead of prometheus-client's locked
ones, because some are touched per token; all of them are written and read on the event loop's thread only.
prometheus-client writes the exposition format.

A label's values come from bounded sets: the model registry, the route table, the enums of the table below. What a
client sends never becomes a label (D-35); should one slip through, a metric keeps at most `_MAX_SERIES` series.

Source: names and buckets, vLLM 0.32 `vllm/v1/metrics`; http_* as prometheus-fastapi-instrumentator writes them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import TypeVar

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_MAX_SERIES = 1000

FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
TOKEN_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
REQUEST_BUCKETS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
COUNT_BUCKETS = (
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0,
    100000.0,
)  # fmt: skip
ANSWER_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0)
HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition", "tool_calls")
REJECTION_REASONS = ("queue_full", "queue_timeout", "deadline")


class MetricKind(StrEnum):
    """How a metric's value moves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str
    kind: MetricKind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed_name(self) -> str:
        """What a scrape shows: a counter's name ends in `_total`, as Prometheus wants it."""
        return f"{self.name}_total" if self.kind is MetricKind.COUNTER else self.name


_MODEL = ("model_name", "engine")


def _counter(name: str, unit: str, help_: str, labels: tuple[str, ...] = _MODEL) -> Metric:
    return Metric(name=name, kind=MetricKind.COUNTER, unit=unit, help=help_, labels=labels)


def _gauge(name: str, unit: str, help_: str, labels: tuple[str, ...] = _MODEL) -> Metric:
    return Metric(name=name, kind=MetricKind.GAUGE, unit=unit, help=help_, labels=labels)


def _histogram(
    name: str, unit: str, help_: str, buckets: tuple[float, ...], labels: tuple[str, ...] = _MODEL
) -> Metric:
    return Metric(name=name, kind=MetricKind.HISTOGRAM, unit=unit, help=help_, labels=labels, buckets=buckets)


METRICS: tuple[Metric, ...] = (
    _gauge("vllm:num_requests_running", "requests", "Sequences in the engine's batch now."),
    _gauge("vllm:num_requests_waiting", "requests", "Requests waiting: for a permit, or inside the engine."),
    _gauge("vllm:kv_cache_usage_perc", "ratio", "Share of the KV cache in use, 0 to 1."),
    _gauge(
        "vllm:lora_requests_info",
        "timestamp",
        "Adapters with running and with waiting requests; max_lora is how many are loaded.",
        ("max_lora", "waiting_lora_adapters", "running_lora_adapters"),
    ),
    _gauge(
        "vllm:cache_config_info",
        "constant 1",
        "How the KV cache is set up.",
        ("model_name", "engine", "kv_cache_tokens", "max_model_len", "max_num_seqs"),
    ),
    _counter("vllm:prompt_tokens", "tokens", "Prompt tokens of answered requests."),
    _counter("vllm:prompt_tokens_cached", "tokens", "Prompt tokens taken from the prefix cache."),
    _counter("vllm:generation_tokens", "tokens", "Generated tokens."),
    _counter(
        "vllm:request_success", "answers", "Answers by how they ended.", (*_MODEL, "finished_reason")
    ),
    _counter("vllm:num_preemptions", "preemptions", "Sequences pushed out of the KV cache and recomputed."),
    _counter("vllm:prefix_cache_queries", "tokens", "Prompt tokens looked up in the prefix cache."),
    _counter("vllm:prefix_cache_hits", "tokens", "Prompt tokens found in the prefix cache."),
    _counter(
        "vllm:admission_rejections", "requests", "Requests refused before they ran.", ("model_name", "reason")
    ),
    _histogram(
        "vllm:time_to_first_token_seconds", "seconds", "Arrival to first token.", FIRST_TOKEN_BUCKETS
    ),
    _histogram(
        "vllm:inter_token_latency_seconds", "seconds", "Gap between engine steps of a request.", TOKEN_BUCKETS
    ),
    _histogram(
        "vllm:request_time_per_output_token_seconds",
        "seconds",
        "Mean gap between tokens of a request.",
        TOKEN_BUCKETS,
    ),
    _histogram("vllm:e2e_request_latency_seconds", "seconds", "Arrival to end.", REQUEST_BUCKETS),
    _histogram("vllm:request_queue_time_seconds", "seconds", "Arrival to permit.", REQUEST_BUCKETS),
    _histogram("vllm:request_prefill_time_seconds", "seconds", "Permit to first token.", REQUEST_BUCKETS),
    _histogram("vllm:request_decode_time_seconds", "seconds", "First to last token.", REQUEST_BUCKETS),
    _histogram("vllm:request_inference_time_seconds", "seconds", "Permit to last token.", REQUEST_BUCKETS),
    _histogram("vllm:request_prompt_tokens", "tokens", "Prompt tokens of a request.", COUNT_BUCKETS),
    _histogram("vllm:request_generation_tokens", "tokens", "Generated tokens of a request.", COUNT_BUCKETS),
    _histogram("vllm:request_params_n", "answers", "Answers a request asked for.", ANSWER_BUCKETS),
    _histogram("vllm:request_params_max_tokens", "tokens", "max_tokens of a request.", COUNT_BUCKETS),
    _counter("http_requests", "requests", "HTTP responses.", ("handler", "method", "status")),
    _histogram(
        "http_request_duration_seconds",
        "seconds",
        "First byte in to last byte out.",
        HTTP_BUCKETS,
        ("handler", "method"),
    ),
    _gauge("argosy_http_requests_in_flight", "requests", "HTTP requests being answered now.", ()),
    _counter(
        "argosy_client_disconnects", "requests", "Requests whose client went away, or read too slowly.", ("reason",)
    ),
    _counter(
        "argosy_api_keys_reload_failures", "changes", "Changes of the API key file that could not be used.", ()
    ),
    _gauge("argosy_start_phase_seconds", "seconds", "How long each phase of the start took.", ("phase",)),
    _gauge("argosy_build_info", "constant 1", "The running version.", ("version",)),
)  # fmt: skip


class Counter:
    """A value that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Count `amount` more."""
        self.value += amount


class Gauge:
    """A value that moves both ways."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        """Replace the value."""
        self.value = value

    def add(self, amount: float) -> None:
        """Move the value."""
        self.value += amount


class Histogram:
    """Observations counted by bucket."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """(upper bound, observations at or below it), as Prometheus exposes them."""
        running = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            running += count
            yield str(bound), running
        yield "+Inf", running + self.counts[-1]


_Cell = TypeVar("_Cell", Counter, Gauge, Histogram)
_Cells = dict[str, dict[tuple[str, ...], _Cell]]


class Metrics:
    """The cells of one process, and their exposition. `before_scrape` hooks refresh gauges that are sampled."""

    def __init__(self, table: Iterable[Metric] = METRICS) -> None:
        self._table = {metric.name: metric for metric in table}
        self._counters: _Cells[Counter] = {}
        self._gauges: _Cells[Gauge] = {}
        self._histograms: _Cells[Histogram] = {}
        self._hooks: list[Callable[[], None]] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def counter(self, name: str, *labels: str) -> Counter:
        """The counter of this name and these label values, made on first use."""
        return self._cell(self._counters, name, labels, Counter)

    def gauge(self, name: str, *labels: str) -> Gauge:
        """The gauge of this name and these label values, made on first use."""
        return self._cell(self._gauges, name, labels, Gauge)

    def histogram(self, name: str, *labels: str) -> Histogram:
        """The histogram of this name and these label values, made on first use."""
        return self._cell(self._histograms, name, labels, lambda: Histogram(self._table[name].buckets))

    def clear(self, name: str) -> None:
        """Forget a gauge whose labels are its value (vLLM's `…_info` metrics), before writing it anew."""
        self._gauges.pop(name, None)

    def before_scrape(self, hook: Callable[[], None]) -> None:
        """Call `hook` each time before values are read."""
        self._hooks.append(hook)

    def expose(self) -> bytes:
        """Everything, in Prometheus' text format."""
        for hook in self._hooks:
            hook()
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        """Called by prometheus-client: one family per metric that has cells."""
        for metric in self._table.values():
            if cells := self._histograms.get(metric.name):
                yield _histogram_family(metric, cells)
            elif counters := self._counters.get(metric.name):
                yield _value_family(CounterMetricFamily(metric.name, metric.help, labels=metric.labels), counters)
            elif gauges := self._gauges.get(metric.name):
                yield _value_family(GaugeMetricFamily(metric.name, metric.help, labels=metric.labels), gauges)

    def _cell(self, cells: _Cells[_Cell], name: str, labels: tuple[str, ...], make: Callable[[], _Cell]) -> _Cell:
        series = cells.setdefault(name, {})
        cell = series.get(labels)
        if cell is None:
            metric = self._table[name]
            if len(labels) != len(metric.labels):
                raise ValueError(f"{name} has labels {metric.labels}, got {labels}")
            if len(series) >= _MAX_SERIES:
                labels = ("other",) * len(labels)
            cell = series.setdefault(labels, make())
        return cell


def _histogram_family(metric: Metric, cells: dict[tuple[str, ...], Histogram]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, cell in cells.items():
        family.add_metric([*labels], [*cell.cumulative()], sum_value=cell.total)
    return family


def _value_family(
    family: CounterMetricFamily | GaugeMetricFamily,
    cells: dict[tuple[str, ...], Counter] | dict[tuple[str, ...], Gauge],
) -> Family:
    for labels, cell in cells.items():
        family.add_metric([*labels], cell.value)
    return family
