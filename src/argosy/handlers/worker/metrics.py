"""What handlers measure: `context.metrics`, by the names that TorchServe gives it.

Observations are kept until the next answer takes them to the server, at most so many: a handler that measures without
end costs itself its later observations, never the server its memory. Dimensions are by name; `ModelName` and `Level`
are added as TorchServe adds them. Source: ts/metrics/metric_cache_abstract.py and caching_metric.py of 0.12.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Sequence

from argosy.core.prediction import HandlerMetric
from argosy.handlers.worker.messages import DeclaredMetric, text_of

MAX_KEPT = 1_000
UNITS = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "kB": "Kilobytes",
    "B": "Bytes",
    "": "unit",
}
_LOG = logging.getLogger("ts.metrics")


class MetricTypes(enum.Enum):
    """How observations of a metric add up."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Dimension:
    """One name and value that an observation is told apart by."""

    def __init__(self, name: str, value: object) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def to_dict(self) -> dict[str, object]:
        """As TorchServe's logs have it."""
        return {"Name": self.name, "Value": self.value}


class MetricsCacheKeyError(Exception):
    """No metric of that name and type."""


class MetricsCacheTypeError(Exception):
    """An argument of the wrong type."""


class MetricsCacheValueError(Exception):
    """An argument with a wrong value."""


class CachingMetric:
    """One metric and the names of its dimensions."""

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
        kept: list[HandlerMetric] | None = None,
    ) -> None:
        self.metric_name = text_of(metric_name)
        self.unit = UNITS.get(unit or "") or text_of(unit)
        self.dimension_names = list(dimension_names or ())
        self.metric_type = metric_type
        self._kept = kept if kept is not None else []

    def add_or_update(self, value: float, dimension_values: Sequence[object] = (), request_id: str = "") -> None:
        """Note an observation; a wrong one is logged and left out, as TorchServe does."""
        del request_id
        if len(dimension_values) != len(self.dimension_names):
            _LOG.error(
                "metric %s has the dimensions %s, not values for them: %s",
                self.metric_name,
                self.dimension_names,
                list(dimension_values),
            )
            return
        if self.metric_type is MetricTypes.COUNTER and value < 0:
            _LOG.error("counter %s cannot fall: %s", self.metric_name, value)
            return
        if len(self._kept) >= MAX_KEPT:
            return
        names = (text_of(name) for name in self.dimension_names)
        dimensions = dict(zip(names, (text_of(each) for each in dimension_values), strict=True))
        self._kept.append(
            HandlerMetric(
                name=self.metric_name,
                value=float(value),
                unit=self.unit,
                kind=self.metric_type.value,
                dimensions=dimensions,
            )
        )

    def update(self, value: float, request_id: str = "", dimensions: Sequence[Dimension] = ()) -> None:
        """The older call: with the dimensions in place of those it was made with."""
        self.dimension_names = [each.name for each in dimensions]
        self.add_or_update(value, [each.value for each in dimensions], request_id)


class MetricsCache:
    """`context.metrics`. store, request_ids, model_name: as handlers read them."""

    def __init__(self, model_name: str, declared: Iterable[DeclaredMetric] = ()) -> None:
        self.model_name = model_name
        self.request_ids: dict[int, str] | str | None = None
        self.cache: dict[MetricTypes, dict[str, CachingMetric]] = {}
        self.store: list[HandlerMetric] = []
        for metric in declared:
            self.add_metric_to_cache(metric.name, metric.unit, list(metric.dimensions), MetricTypes(metric.kind))

    def drain(self) -> tuple[HandlerMetric, ...]:
        """What was observed since the last time."""
        taken = tuple(self.store)
        self.store.clear()
        return taken

    def set_request_ids(self, request_ids: dict[int, str] | str | None) -> None:
        """The running batch's; observations carry the model's labels, not the request's."""
        self.request_ids = request_ids

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Note an observation of any metric."""
        del idx
        usual = {"ModelName": self.model_name, "Level": "Model"}
        added = [Dimension(key, text) for key, text in usual.items() if not _has(dimensions, key)]
        self._observe(name, value, unit, [*(dimensions or ()), *added], metric_type)

    def add_counter(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        """Count up."""
        self.add_metric(name, value, "count", idx, dimensions)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Note a time, in `ms` or `s`."""
        if unit not in ("ms", "s"):
            raise MetricsCacheValueError(f"the unit of a time is 'ms' or 's', not {unit!r}")
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Note a size, in `B`, `kB`, `MB` or `GB`."""
        if unit not in ("MB", "kB", "GB", "B"):
            raise ValueError(f"the unit of a size is 'B', 'kB', 'MB' or 'GB', not {unit!r}")
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Note a share of a hundred."""
        self.add_metric(name, value, "percent", idx, dimensions, metric_type)

    def add_error(self, name: str, value: float | str, dimensions: Sequence[Dimension] | None = None) -> None:
        """Count an error; a text counts once."""
        level = [] if _has(dimensions, "Level") else [Dimension("Level", "Error")]
        amount = float(value) if isinstance(value, int | float) else 1.0
        self._observe(name, amount, "", [*(dimensions or ()), *level], MetricTypes.COUNTER)

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> CachingMetric:
        """A metric to observe later; one of the same name and type is replaced."""
        if not isinstance(metric_name, str) or not isinstance(unit, str):
            raise MetricsCacheTypeError(f"a metric's name and unit are texts, not {metric_name!r} and {unit!r}")
        if not isinstance(metric_type, MetricTypes):
            raise MetricsCacheTypeError(f"a metric's type is one of MetricTypes, not {metric_type!r}")
        metric = CachingMetric(metric_name, unit, dimension_names, metric_type, self.store)
        self.cache.setdefault(metric_type, {})[metric_name] = metric
        return metric

    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> CachingMetric:
        """A metric that `metrics.yaml` declares, or the handler added."""
        try:
            return self.cache[metric_type][metric_name]
        except KeyError:
            raise MetricsCacheKeyError(f"no {metric_type.value} is called {metric_name!r}") from None

    def _observe(self, name: str, value: float, unit: str, dimensions: list[Dimension], kind: MetricTypes) -> None:
        names = [each.name for each in dimensions]
        metric = self.cache.get(kind, {}).get(name)
        if metric is None or metric.dimension_names != names:
            metric = CachingMetric(name, unit, names, kind, self.store)
        metric.add_or_update(value, [each.value for each in dimensions])


def _has(dimensions: Sequence[Dimension] | None, name: str) -> bool:
    return any(each.name == name for each in dimensions or ())
