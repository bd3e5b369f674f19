"""What runs and what it does, as rows for people: `argosy top`, the lists of replicas. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from argosy.control.evidence import quantile
from argosy.control.traffic import NOTHING, ServiceGauges, ServiceTotals, TrafficWindow
from argosy.core.inference_service import InferenceService
from argosy.core.load_report import ReplicaReport
from argosy.core.service_views import ReplicaView, ServiceLoad
from argosy.core.workload import REVISION_LABEL, ReplicaStatus, ReplicaUse, WorkloadStatus


def replica_views(
    service: str, statuses: Iterable[WorkloadStatus], gauges: ServiceGauges, token_rate: Callable[[str], float | None]
) -> tuple[ReplicaView, ...]:
    """Every replica of a service with its load. token_rate: tokens per second of a replica; None = not known."""
    views = []
    for status in sorted(statuses, key=lambda each: each.name):
        revision = status.labels.get(REVISION_LABEL, "")
        for replica in status.replicas:
            load = gauges.replicas.get(replica.name)
            report = load.report if load is not None else None
            views.append(
                ReplicaView(
                    service=service,
                    revision=revision,
                    status=with_start_phases(replica, report),
                    num_requests_running=report.num_requests_running if report else None,
                    num_requests_waiting=report.num_requests_waiting if report else None,
                    kv_cache_usage_ratio=report.kv_cache_usage_ratio if report else None,
                    generation_tokens_per_second=token_rate(replica.name),
                    is_ejected=load.is_ejected if load is not None else False,
                )
            )
    return tuple(views)


def with_use(view: ReplicaView, use: ReplicaUse | None) -> ReplicaView:
    """The replica with what it takes of its machine, if that is known."""
    if use is None:
        return view
    return msgspec.structs.replace(view, memory_bytes=use.memory_bytes, cpu_ratio=use.cpu_ratio)


def with_start_phases(replica: ReplicaStatus, report: ReplicaReport | None) -> ReplicaStatus:
    """The replica with the parts of its start: as the backend has them, else as the replica told a gateway."""
    if replica.start_seconds or report is None or not report.start_seconds:
        return replica
    return msgspec.structs.replace(replica, start_seconds=report.start_seconds)


def service_load(
    service: InferenceService, gauges: ServiceGauges, seconds: float, recent: ServiceTotals
) -> ServiceLoad:
    """A service's traffic over the last `seconds`, and that of each revision that had any or has a weight."""
    weights = {each.revision: each.weight for each in service.status.revisions}
    names = sorted((recent.revisions.keys() | weights.keys()) - {""}, key=_number)
    rows = []
    for name in names:
        window = recent.revisions.get(name, NOTHING)
        in_flight = gauges.revision_in_flight.get(name, 0)
        if window.requests or in_flight or weights.get(name):
            rows.append(_row(service.metadata.name, name, window, seconds, in_flight, weights.get(name, 0)))
    total = _row(service.metadata.name, "", recent.all_revisions(), seconds, gauges.in_flight, 100)
    return ServiceLoad(
        service=total.service,
        requests_per_second=recent.arrivals / seconds if seconds > 0 else 0.0,
        errors_per_second=total.errors_per_second,
        generation_tokens_per_second=total.generation_tokens_per_second,
        num_requests_in_flight=gauges.in_flight,
        num_requests_held=gauges.held,
        ttft_p50_seconds=total.ttft_p50_seconds,
        ttft_p95_seconds=total.ttft_p95_seconds,
        tpot_p50_seconds=total.tpot_p50_seconds,
        slo_good_ratio=total.slo_good_ratio,
        weight=100,
        by_revision=tuple(rows),
    )


def _row(
    service: str, revision: str, window: TrafficWindow, seconds: float, in_flight: int, weight: int
) -> ServiceLoad:
    per = 1.0 / seconds if seconds > 0 else 0.0
    return ServiceLoad(
        service=service,
        revision=revision,
        requests_per_second=window.requests * per,
        errors_per_second=window.errors * per,
        generation_tokens_per_second=window.generation_tokens * per,
        num_requests_in_flight=in_flight,
        ttft_p50_seconds=quantile(window.ttft_counts, 0.5),
        ttft_p95_seconds=quantile(window.ttft_counts, 0.95),
        tpot_p50_seconds=quantile(window.tpot_counts, 0.5),
        slo_good_ratio=window.slo_good / window.answers if window.answers else None,
        weight=weight,
    )


def _number(revision: str) -> tuple[int, str]:
    digits = revision[1:]
    return (int(digits), revision) if digits.isdigit() else (0, revision)
