"""`ts.service`: what old handlers import from it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from argosy.handlers.worker.calls import PredictionException

_LOG = logging.getLogger("ts.service")


def emit_metrics(metrics: Iterable[object]) -> None:
    """Log metrics as TorchServe's lines; what `context.metrics` is told reaches the metrics API by itself."""
    for metric in metrics:
        _LOG.info("[METRICS]%s", metric)


__all__ = ["PredictionException", "emit_metrics"]
