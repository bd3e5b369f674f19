"""The control plane's own metrics: counted as the loop tells of them, or read from what it knows at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from argosy.control.world import World
from argosy.core.inference_service import InferenceService
from argosy.core.workload import REVISION_LABEL, ReplicaPhase, WorkloadStatus
from argosy.observe.metrics import Metrics

_READ_AT_A_SCRAPE = (
    "argosy_control_service_phase",
    "argosy_control_rollout_phase",
    "argosy_control_desired_replicas",
    "argosy_control_ready_replicas",
    "argosy_control_max_replicas",
    "argosy_control_revision_weight_ratio",
    "argosy_control_replicas",
    "argosy_control_spare_replicas",
    "argosy_control_replica_restarts",
    "argosy_control_replica_start_seconds",
)


class LoopMetrics:
    """A `LoopObserver` that counts."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seconds = metrics.histogram("argosy_control_reconcile_seconds")
        self._last = metrics.gauge("argosy_control_last_pass_timestamp_seconds")

    def looked(self, seconds: float, at: float) -> None:
        """One service was looked at."""
        self._seconds.observe(seconds)
        self._last.set(at)

    def failed(self, reason: str) -> None:
        """A look did not finish."""
        self._metrics.counter("argosy_control_reconcile_errors", reason).add()

    def told(self, service: str, reason: str) -> None:
        """An event was stored."""
        self._metrics.counter("argosy_control_events", service, reason).add()


def show_world(metrics: Metrics, world: World, clock: Callable[[], float]) -> None:
    """Let every scrape show what the loop knows then."""

    def write() -> None:
        for name in _READ_AT_A_SCRAPE:
            metrics.clear(name)
        for service in world.services.values():
            _write_service(metrics, service)
        for name, statuses in world.statuses.items():
            for status in statuses:
                _write_replicas(metrics, name, status)
        now = clock()
        metrics.gauge("argosy_control_gateways").set(len(world.ledger.reports(now)))
        metrics.gauge("argosy_control_figures_stale").set(world.ledger.is_stale(now))

    metrics.before_scrape(write)


def _write_service(metrics: Metrics, service: InferenceService) -> None:
    name, status = service.metadata.name, service.status
    metrics.gauge("argosy_control_service_phase", name, status.phase.value).set(1)
    metrics.gauge("argosy_control_rollout_phase", name, status.rollout.phase.value).set(1)
    metrics.gauge("argosy_control_desired_replicas", name).set(status.desired_replicas)
    metrics.gauge("argosy_control_ready_replicas", name).set(status.ready_replicas)
    metrics.gauge("argosy_control_max_replicas", name).set(service.spec.scaling.max_replicas)
    for each in status.revisions:
        metrics.gauge("argosy_control_revision_weight_ratio", name, each.revision).set(each.weight / 100)


def _write_replicas(metrics: Metrics, service: str, status: WorkloadStatus) -> None:
    revision = status.labels.get(REVISION_LABEL, "")
    phases = Counter(each.phase for each in status.replicas)
    for phase in ReplicaPhase:
        if phases[phase]:
            metrics.gauge("argosy_control_replicas", service, revision, phase.value).set(phases[phase])
    metrics.gauge("argosy_control_spare_replicas", service, revision).set(
        sum(each.is_spare for each in status.replicas)
    )
    metrics.gauge("argosy_control_replica_restarts", service, revision).set(
        sum(each.restarts for each in status.replicas)
    )
    starts = [
        each.ready_at - each.started_at
        for each in status.replicas
        if each.phase is ReplicaPhase.READY and each.ready_at is not None and each.started_at is not None
    ]
    if starts:
        metrics.gauge("argosy_control_replica_start_seconds", service, revision).set(max(starts))
