"""The waist between the planes: N replicas of a command. All that runs compiles to it; backends know nothing else."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from argosy.core.resources import Resources

# What a backend puts in place of these words in an argument, as Kubernetes does with $(VARIABLE).
HOST_WORD = "$(HOST)"
PORT_WORD = "$(PORT)"

SERVICE_LABEL = "argosy/service"
REVISION_LABEL = "argosy/revision"


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An HTTP path that answers 200 when all is well, and how patient we are."""

    path: str
    period_seconds: float = 1.0
    timeout_seconds: float = 3.0
    failure_threshold: int = 3


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """N replicas of one command. A backend makes it so, and keeps it so.

    name: unique in a backend. argv: no shell; `$(HOST)` and `$(PORT)` stand for where the replica shall listen.
    warm_spares: replicas kept beyond `replicas`: loaded and healthy, but not routed. When `replicas` grows, a ready
    spare becomes a replica at once and a new spare is started behind it.
    port: where the one replica must listen; None = the backend finds a free port for each.
    gang: all replicas start, or none. start_timeout_seconds: a replica not ready by then is started anew.
    shutdown_grace_seconds: between SIGTERM, on which a replica drains, and SIGKILL.
    """

    name: str
    argv: tuple[str, ...]
    labels: dict[str, str] = {}
    env: dict[str, str] = {}
    replicas: int = 1
    warm_spares: int = 0
    resources: Resources = Resources()
    readiness: Probe = Probe(path="/readyz")
    liveness: Probe = Probe(path="/livez")
    start_timeout_seconds: float = 600.0
    shutdown_grace_seconds: float = 30.0
    port: int | None = None
    gang: bool = False


class ReplicaPhase(StrEnum):
    """The one state machine of a replica, shown the same everywhere.

    pending → starting → ready ⇄ unready → draining → gone; a crash leads to backoff → starting.
    """

    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    BACKOFF = "backoff"
    DRAINING = "draining"


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one replica now.

    address: `host:port`, once it has one. reason: one CamelCase word (docs/events.md); message: a sentence.
    is_spare: warm, not routed. started_at, ready_at: unix seconds, of the current process; restarts: those before it.
    start_seconds: the parts of its start, as the replica itself told them.
    """

    name: str
    phase: ReplicaPhase
    address: str | None = None
    is_spare: bool = False
    reason: str = ""
    message: str = ""
    restarts: int = 0
    last_exit_code: int | None = None
    process_id: int | None = None
    devices: tuple[str, ...] = ()
    started_at: float | None = None
    ready_at: float | None = None
    start_seconds: dict[str, float] = {}


class ReplicaUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica takes of its machine now. cpu_ratio: cores it keeps busy, 1.0 = one; None = not known yet."""

    memory_bytes: int
    cpu_ratio: float | None = None


class WorkloadStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is, not what was asked. message: why it is less than asked, if the backend knows ("" = all well)."""

    name: str
    labels: dict[str, str] = {}
    desired_replicas: int
    replicas: tuple[ReplicaStatus, ...] = ()
    reason: str = ""
    message: str = ""

    def ready(self) -> tuple[ReplicaStatus, ...]:
        """Replicas that take requests."""
        return tuple(each for each in self.replicas if each.phase is ReplicaPhase.READY and not each.is_spare)
