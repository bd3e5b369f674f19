"""`ts.metrics.…`: one module under all its names; the work is done in `worker/metrics.py`."""

from __future__ import annotations

from argosy.core.prediction import HandlerMetric as Metric
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
