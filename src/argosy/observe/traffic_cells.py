"""A gateway's report as metrics: written anew at each scrape, so a service that is gone leaves no series behind."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.core.load_report import LATENCY_BOUNDS_SECONDS, GatewayReport, RevisionTraffic, ServiceTraffic
from argosy.observe.gateway_metrics import GATEWAY_METRICS
from argosy.observe.metrics import Metrics

# Counted where it happens, not in a report.
_COUNTED_ELSEWHERE = frozenset({"argosy_gateway_key_requests", "argosy_gateway_key_tokens"})
_REVISION_COUNTERS = (
    "requests", "errors", "completions", "slo_good", "prompt_tokens", "generation_tokens", "queue_seconds",
)  # fmt: skip


def write_report(metrics: Metrics, report: GatewayReport) -> None:
    """Set the cells of `GATEWAY_METRICS` to what a report says."""
    for row in GATEWAY_METRICS:
        if row.name not in _COUNTED_ELSEWHERE:
            metrics.clear(row.name)
    metrics.gauge("argosy_gateway_routes_version").set(report.routes_version)
    metrics.gauge("argosy_gateway_routes_stale_seconds").set(report.routes_stale_seconds)
    for service in report.services:
        _write_service(metrics, service)


def report_metrics(report: GatewayReport) -> bytes:
    """A report in Prometheus' text format, as the control plane shows it for a gateway."""
    metrics = Metrics(GATEWAY_METRICS)
    write_report(metrics, report)
    return metrics.expose_own()


def _write_service(metrics: Metrics, service: ServiceTraffic) -> None:
    name = service.service
    for what in ("arrivals", "retries", "cache_hits", "ejections"):
        metrics.counter(f"argosy_gateway_{what}", name).value = getattr(service, what)
    metrics.gauge("argosy_gateway_requests_held", name).set(service.held)
    for traffic in service.revisions:
        _write_revision(metrics, name, traffic)
    for load in service.replicas:
        labels = (name, load.revision, load.replica)
        metrics.gauge("argosy_gateway_replica_requests_in_flight", *labels).set(load.in_flight)
        metrics.gauge("argosy_gateway_replica_ejected", *labels).set(load.is_ejected)


def _write_revision(metrics: Metrics, service: str, traffic: RevisionTraffic) -> None:
    labels = (service, traffic.revision)
    if traffic.is_shadow:
        metrics.counter("argosy_gateway_shadow_requests", *labels).value = traffic.requests
        metrics.counter("argosy_gateway_shadow_errors", *labels).value = traffic.errors
        return
    for what in _REVISION_COUNTERS:
        metrics.counter(f"argosy_gateway_{what}", *labels).value = getattr(traffic, what)
    metrics.gauge("argosy_gateway_requests_in_flight", *labels).set(traffic.in_flight)
    for what in ("ttft", "tpot"):
        cell = metrics.histogram(f"argosy_gateway_{what}_seconds", *labels)
        cell.counts = _counts(getattr(traffic, f"{what}_counts"))
        cell.total = getattr(traffic, f"{what}_seconds")


def _counts(counts: Sequence[int]) -> list[int]:
    """The buckets of a histogram; a report without them has seen nothing."""
    return [*counts] if len(counts) == len(LATENCY_BOUNDS_SECONDS) + 1 else [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
