"""How services, replicas and loads look in a terminal: one place, so that `list`, `get` and `top` say the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from argosy.cli.service_file import differing
from argosy.cli.terminal import fitted, table
from argosy.core.inference_service import InferenceService, Revision, RevisionTemplate
from argosy.core.metadata import Event
from argosy.core.resources import DeviceStatus
from argosy.core.service_views import ReplicaView, ServiceLoad
from argosy.core.workload import ReplicaStatus

_NOTHING = "-"


def age(seconds: float) -> str:
    """`45s`, `2m11s`, `3h5m`, `4d2h`: as kubectl writes ages."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h"


def service_table(services: Iterable[InferenceService], now: float, *, wide: bool = False) -> Table:
    """One line per service."""
    headers = ["name", "model", "phase", "ready", "range", "revision", "traffic", "age"]
    drawn = table(*headers, *(["message"] if wide else []), right=("ready", "age"))
    for service in services:
        status, scaling = service.status, service.spec.scaling
        cells = [
            service.metadata.name,
            service.spec.template.model,
            status.phase.value,
            f"{status.ready_replicas}/{status.desired_replicas}",
            f"{scaling.min_replicas}..{scaling.max_replicas}",
            status.rollout.target or status.rollout.stable or _NOTHING,
            traffic_text(service),
            age(now - service.metadata.created_at),
        ]
        drawn.add_row(*cells, *([ready_message(service)] if wide else []))
    return fitted(drawn, "traffic", "age", "model", "revision", "range")


WATCH_HEADER = f"{'TIME':10}{'NAME':24}{'PHASE':13}{'READY':>7}  {'TRAFFIC':16}MESSAGE"


def watch_line(service: InferenceService, *, is_deleted: bool = False) -> str:
    """A service in one line under `WATCH_HEADER`, but for the time it was seen."""
    status = service.status
    phase = "deleted" if is_deleted else status.phase.value
    ready = f"{status.ready_replicas}/{status.desired_replicas}"
    message = status.rollout.message or ready_message(service)
    return f"{service.metadata.name:24}{phase:13}{ready:>7}  {traffic_text(service):16}{message}".rstrip()


def traffic_text(service: InferenceService) -> str:
    """`v1=90 v2=10`: where requests go now."""
    weights = [f"{each.revision}={each.weight}" for each in service.status.revisions if each.weight]
    return " ".join(weights) or _NOTHING


def ready_message(service: InferenceService) -> str:
    """What the Ready condition says."""
    return next((each.message for each in service.status.conditions if each.type == "Ready"), "")


def revision_table(service: InferenceService, revisions: Sequence[Revision], now: float) -> Table:
    """One line per revision, those that run first."""
    headers = ("revision", "model", "engine", "settings", "ready", "traffic", "age", "message")
    drawn = table(*headers, right=("ready", "traffic", "age"))
    running = {each.revision: each for each in service.status.revisions}
    for revision in sorted(revisions, key=lambda each: -each.spec.number):
        status = running.get(revision.short_name)
        drawn.add_row(
            revision.short_name,
            revision.spec.template.model,
            revision.spec.template.engine or "auto",
            settings_text(revision.spec.template),
            f"{status.ready_replicas}/{status.desired_replicas}" if status else _NOTHING,
            f"{status.weight}%" if status else _NOTHING,
            age(now - revision.metadata.created_at),
            status.message if status else "",
        )
    return fitted(drawn, "message", "settings", "engine", "model", "age")


def settings_text(template: RevisionTemplate) -> str:
    """`max_num_seqs=4 cpu=2.0`: what else makes a revision differ from a plain one of its model."""
    fields = {name: value for name, value in differing(template).items() if name not in ("model", "engine")}
    return " ".join(f"{name}={value}" for name, value in _leaves(fields)) or _NOTHING


def _leaves(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield name, value


def replica_table(replicas: Iterable[ReplicaView], now: float) -> Table:
    """One line per replica."""
    drawn = table(
        "replica", "revision", "phase", "restarts", "devices", "address", "age", "message", right=("restarts", "age")
    )
    for view in replicas:
        status = view.status
        drawn.add_row(
            status.name,
            view.revision,
            phase_text(status),
            str(status.restarts),
            " ".join(status.devices) or _NOTHING,
            status.address or _NOTHING,
            age(now - status.started_at) if status.started_at else _NOTHING,
            status.message or status.reason,
        )
    return fitted(drawn, "age", "devices", "revision", "restarts", "address")


def phase_text(status: ReplicaStatus) -> str:
    """The phase; a warm spare says so."""
    return f"{status.phase.value} (spare)" if status.is_spare else status.phase.value


def load_table(services: Iterable[ServiceLoad]) -> Table:
    """One line per service, and one per revision when several have traffic."""
    numbers = ("traffic", "req/s", "err/s", "tok/s", "in flight", "held", "ttft p50", "p95", "tpot p50", "slo")
    drawn = table("service", *numbers, right=numbers)
    for load in services:
        drawn.add_row(load.service, "", *_load_cells(load))
        if len(load.by_revision) > 1:
            for each in load.by_revision:
                drawn.add_row(f"  {each.revision}", f"{each.weight}%", *_load_cells(each))
    return fitted(drawn, "err/s", "p95", "tpot p50", "held", "slo", "in flight")


def _load_cells(load: ServiceLoad) -> list[str]:
    return [
        f"{load.requests_per_second:.1f}",
        f"{load.errors_per_second:.1f}",
        f"{load.generation_tokens_per_second:.0f}",
        str(load.num_requests_in_flight),
        str(load.num_requests_held),
        seconds_text(load.ttft_p50_seconds),
        seconds_text(load.ttft_p95_seconds),
        seconds_text(load.tpot_p50_seconds),
        _NOTHING if load.slo_good_ratio is None else f"{load.slo_good_ratio:.1%}",
    ]


def seconds_text(seconds: float | None) -> str:
    """`85ms`, `1.25s`."""
    if seconds is None:
        return _NOTHING
    return f"{seconds * 1000:.0f}ms" if seconds < 0.9995 else f"{seconds:.2f}s"


def replica_load_table(replicas: Iterable[ReplicaView]) -> Table:
    """One line per replica: what it does and what it uses."""
    numbers = ("running", "waiting", "kv", "tok/s", "cpu", "memory")
    drawn = table("replica", "phase", "devices", *numbers, right=numbers)
    for view in replicas:
        phase = f"{phase_text(view.status)}, ejected" if view.is_ejected else phase_text(view.status)
        drawn.add_row(
            view.status.name,
            phase,
            " ".join(view.status.devices) or _NOTHING,
            _number(view.num_requests_running),
            _number(view.num_requests_waiting),
            _share(view.kv_cache_usage_ratio),
            _number(view.generation_tokens_per_second),
            _share(view.cpu_ratio),
            _NOTHING if view.memory_bytes is None else bytes_text(view.memory_bytes),
        )
    return fitted(drawn, "tok/s", "devices", "cpu", "memory")


def device_table(devices: Iterable[DeviceStatus]) -> Table:
    """One line per device."""
    drawn = table("device", "kind", "health", "used", "memory", "replicas", right=("used", "memory"))
    for status in devices:
        memory = status.device.memory_bytes
        used = status.used_memory_bytes
        drawn.add_row(
            status.device.name,
            status.device.kind.value,
            "healthy" if status.device.is_healthy else f"unhealthy: {status.device.message}",
            _share(status.used_ratio),
            _NOTHING if not memory else f"{bytes_text(used)}/{bytes_text(memory)}" if used else bytes_text(memory),
            " ".join(status.replicas) or _NOTHING,
        )
    return fitted(drawn, "kind", "memory")


def event_table(events: Iterable[Event], now: float) -> Table:
    """One line per event, the oldest first."""
    drawn = table("last seen", "kind", "reason", "subject", "count", "message", right=("last seen", "count"))
    for event in events:
        drawn.add_row(*event_cells(event, now))
    return fitted(drawn, "kind", "count", "subject")


def event_cells(event: Event, now: float) -> tuple[str, str, str, str, str, str]:
    """An event's cells, for a table or a following line."""
    seen = age(now - event.last_at)
    return seen, event.kind.value, event.reason, event.subject, str(event.count), event.message


def bytes_text(count: int) -> str:
    """`512Mi`, `1.4Gi`."""
    return f"{count / 2**30:.1f}Gi" if count >= 2**30 else f"{count / 2**20:.0f}Mi"


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.0%}"
