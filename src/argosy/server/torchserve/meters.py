"""What is measured on a server with TorchServe's APIs: its own metrics, the `ts_*` sets, handlers', this machine's."""

from __future__ import annotations

from collections.abc import Iterator

from argosy.core.torchserve_spec import TorchServeMetricsSpec
from argosy.observe.host_metrics import HostFigures
from argosy.observe.metrics import METRICS, Metrics
from argosy.observe.metrics_file import read_metrics_file
from argosy.observe.torchserve_metrics import BUILT_IN, TorchServeMeters, torchserve_metrics
from argosy.serving.predictions.registry import PredictionRegistry


def open_meters(settings: TorchServeMetricsSpec) -> TorchServeMeters:
    """The cells of a server and what fills them. Raises: SpecError for a metrics.yaml that is wrong."""
    metrics = Metrics((*METRICS, *torchserve_metrics(settings.label_set)))
    declared = BUILT_IN if settings.config is None else read_metrics_file(settings.config)
    meters = TorchServeMeters(metrics, settings.label_set, declared=declared, auto_detect=settings.auto_detect)
    if settings.system:
        figures = HostFigures(meters.host_gauge, interval_seconds=settings.system_interval_seconds)
        metrics.before_scrape(figures.sample)
    return meters


def watch_queues(meters: TorchServeMeters, registry: PredictionRegistry) -> None:
    """Show the queue of every version that is registered."""

    def lengths() -> Iterator[tuple[str, str, int]]:
        for version in registry.all():
            yield version.name, version.version, version.num_queued

    meters.watch_queues(lengths)
