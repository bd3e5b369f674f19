"""`ts.metrics.…`: one module under all its names; the work is done in `worker/metrics.py`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from argosy.handlers.worker.metrics import (
    UNITS,
    CachingMetric,
    Dimension,
    MetricsCache,
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
    MetricTypes,
)

MetricAbstract = CachingMetric
MetricCacheAbstract = MetricsCache
MetricsCacheYamlImpl = MetricsCache
MetricsStore = MetricsCache


class Metric:
    """One observation as old handlers made them, for `emit_metrics`: it is logged; `context.metrics` is what counts."""

    def __init__(
        self,
        name: str,
        value: float,
        unit: str,
        dimensions: Sequence[Dimension],
        request_id: str | None = None,
        metric_method: str | None = None,
    ) -> None:
        self.name = name
        self.value = value
        self.unit = UNITS.get(unit or "", unit)
        self.dimensions = list(dimensions)
        self.request_id = request_id
        self.metric_method = metric_method

    def update(self, value: float) -> None:
        """Another value."""
        self.value = value

    def reset(self) -> None:
        """Nothing observed."""
        self.value = 0

    def __str__(self) -> str:
        return f"{self.name}.{self.unit}:{self.value}|#{','.join(str(each) for each in self.dimensions)}"

    def to_dict(self) -> dict[str, Any]:
        """As TorchServe's logs have it."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": self.dimensions,
            "Timestamp": int(time.time()),
            "RequestId": self.request_id,
        }


class Units:
    """TorchServe's names of units."""

    def __init__(self) -> None:
        self.units = dict(UNITS)


__all__ = [
    "CachingMetric",
    "Dimension",
    "Metric",
    "MetricAbstract",
    "MetricCacheAbstract",
    "MetricTypes",
    "MetricsCacheKeyError",
    "MetricsCacheTypeError",
    "MetricsCacheValueError",
    "MetricsCacheYamlImpl",
    "MetricsStore",
    "Units",
]
