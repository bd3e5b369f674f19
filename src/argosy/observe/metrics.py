"""Every metric of Argosy, in one table, and the cells that hold their values.

The rows stand beside this file: `replica_metrics.py`, `gateway_metrics.py`, `control_metrics.py`. Values live in plain
cells (an attribute addition, a bisection) instead of prometheus-client's locked ones, because some are touched per
token; all of them are written and read on the event loop's thread only. prometheus-client writes the exposition format.

A label's values come from bounded sets: the model registry, the route table, the enums of the table below. What a
client sends never becomes a label (D-35); should one slip through, a metric keeps at most `max_series` series.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

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

from argosy.observe.control_metrics import CONTROL_METRICS
from argosy.observe.exposition import escaped
from argosy.observe.gateway_metrics import GATEWAY_METRICS
from argosy.observe.metric import Metric
from argosy.observe.replica_metrics import REPLICA_METRICS

CONTENT_TYPE = CONTENT_TYPE_LATEST

METRICS: tuple[Metric, ...] = (*REPLICA_METRICS, *GATEWAY_METRICS, *CONTROL_METRICS)


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
        self._declared: set[str] = set()
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

    def declare(self, metric: Metric) -> None:
        """Add a row that only a running server knows of; it is shown from now on. Raises: ValueError if it is taken."""
        if metric.name in self._table:
            raise ValueError(f"the metric {metric.name} exists already")
        self._table[metric.name] = metric
        self._declared.add(metric.name)

    def counters(self, name: str) -> Mapping[tuple[str, ...], Counter]:
        """The counters of this name there are now, by their label values."""
        return self._counters.get(name, {})

    def forget(self, name: str, *labels: str) -> None:
        """Show the series of a metric no more, if there is one with these label values."""
        for cells in (self._gauges, self._counters, self._histograms):
            cells.get(name, {}).pop(labels, None)

    def clear(self, name: str) -> None:
        """Forget all series of a metric, before a hook writes those there are now anew."""
        for cells in (self._gauges, self._counters, self._histograms):
            cells.pop(name, None)

    def before_scrape(self, hook: Callable[[], None]) -> None:
        """Call `hook` each time before values are read."""
        self._hooks.append(hook)

    def expose_own(self) -> bytes:
        """The metrics of the table alone, without those of the process and of Python."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry) + self._bare_text()

    def expose(self) -> bytes:
        """Everything, in Prometheus' text format."""
        for hook in self._hooks:
            hook()
        return generate_latest(self._registry) + self._bare_text()

    def collect(self) -> Iterator[Family]:
        """Called by prometheus-client: one family per metric that has cells."""
        for metric in self._table.values():
            if cells := self._histograms.get(metric.name):
                yield _histogram_family(metric, cells)
            elif not metric.is_bare and (counters := self._counters.get(metric.name)):
                yield _value_family(CounterMetricFamily(metric.name, metric.help, labels=metric.labels), counters)
            elif gauges := self._gauges.get(metric.name):
                yield _value_family(GaugeMetricFamily(metric.name, metric.help, labels=metric.labels), gauges)
            elif metric.name in self._declared and not metric.is_bare:
                yield Family(metric.name, metric.help, metric.kind.value)

    def _bare_text(self) -> bytes:
        """Counters whose names do not end in `_total`, which prometheus-client cannot write."""
        lines: list[str] = []
        for metric in self._table.values():
            cells = self._counters.get(metric.name, {})
            if metric.is_bare and (cells or metric.name in self._declared):
                lines.append(f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} counter\n")
                for values, cell in cells.items():
                    labels = ",".join(
                        f'{name}="{escaped(value)}"' for name, value in zip(metric.labels, values, strict=True)
                    )
                    lines.append(f"{metric.name}{{{labels}}} {cell.value!r}\n")
        return "".join(lines).encode()

    def _cell(self, cells: _Cells[_Cell], name: str, labels: tuple[str, ...], make: Callable[[], _Cell]) -> _Cell:
        series = cells.setdefault(name, {})
        cell = series.get(labels)
        if cell is None:
            metric = self._table[name]
            if len(labels) != len(metric.labels):
                raise ValueError(f"{name} has labels {metric.labels}, got {labels}")
            if len(series) >= metric.max_series:
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
