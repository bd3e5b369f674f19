"""What the control plane's API answers besides resources: written for people, by sentences and numbers."""

from __future__ import annotations

import msgspec

from argosy.core.inference_service import InferenceService
from argosy.core.resources import DeviceStatus
from argosy.core.workload import ReplicaStatus


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """A replica, whose it is, and its load: the rows of `argosy get` and `argosy top`. None = not reported."""

    service: str
    revision: str
    status: ReplicaStatus
    num_requests_running: int | None = None
    num_requests_waiting: int | None = None
    kv_cache_usage_ratio: float | None = None
    generation_tokens_per_second: float | None = None
    memory_bytes: int | None = None
    cpu_ratio: float | None = None
    is_ejected: bool = False


class ServiceLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A service's traffic over the last seconds. Rates per second; None = nothing was measured.

    by_revision: rows for each revision with traffic.
    """

    service: str
    revision: str = ""
    requests_per_second: float = 0.0
    errors_per_second: float = 0.0
    generation_tokens_per_second: float = 0.0
    num_requests_in_flight: int = 0
    num_requests_held: int = 0
    ttft_p50_seconds: float | None = None
    ttft_p95_seconds: float | None = None
    tpot_p50_seconds: float | None = None
    slo_good_ratio: float | None = None
    weight: int = 0
    by_revision: tuple[ServiceLoad, ...] = ()


class Top(msgspec.Struct, frozen=True, kw_only=True):
    """`argosy top`. at: unix seconds. gateway_message: why numbers are missing, if they are."""

    at: float
    services: tuple[ServiceLoad, ...] = ()
    replicas: tuple[ReplicaView, ...] = ()
    devices: tuple[DeviceStatus, ...] = ()
    gateway_message: str = ""


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """`argosy why NAME`: one answer, the facts behind it in order, what to do, and where a start's time went.

    start_seconds: per replica, the parts of its start.
    log_tail: the last lines of a replica that failed.
    """

    service: str
    answer: str
    facts: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    start_seconds: dict[str, dict[str, float]] = {}
    log_tail: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A dry run: the service as it would be stored, and exactly what the backend would run."""

    service: InferenceService
    changes: tuple[str, ...] = ()
    rendered: tuple[str, ...] = ()
