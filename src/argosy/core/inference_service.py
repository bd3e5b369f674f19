"""A declared service: what shall run (spec), what was made of it (revisions), and how it is (status)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from argosy.core.engine import EngineSettings
from argosy.core.metadata import Condition, Metadata
from argosy.core.resources import Resources
from argosy.core.scaling import ScalingPolicy


class PromotionPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Step traffic to a new revision while it holds against the old one; go back at once when it does not.

    steps: percent of the traffic, ascending, the last is 100. interval_seconds: least time on a step.
    min_requests: answers of the new revision a verdict needs. max_error_rate: more than the old one's by this much
    fails it. max_ttft_ratio, max_tpot_ratio: the new p90 / the old p90. timeout_seconds: a step without enough
    requests for a verdict holds this long, then the rollout pauses.
    """

    steps: tuple[int, ...] = (5, 25, 50, 100)
    interval_seconds: float = 60.0
    min_requests: int = 50
    max_error_rate: float = 0.01
    max_ttft_ratio: float = 1.25
    max_tpot_ratio: float = 1.25
    timeout_seconds: float = 1800.0


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a new revision takes over. max_surge: replicas beyond the desired ones; max_unavailable: fewer than desired.

    progress_deadline_seconds: without progress for so long, the last good revision comes back.
    promotion: None = all traffic moves as soon as the new replicas are ready.
    history_limit: old revisions kept for `argosy rollout undo`.
    """

    max_surge: int = 1
    max_unavailable: int = 0
    progress_deadline_seconds: float = 600.0
    promotion: PromotionPolicy | None = None
    history_limit: int = 10


class StickySource(StrEnum):
    """What a caller is recognised by."""

    HEADER = "header"
    USER = "user"
    KEY = "key"


class StickyPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same caller meets the same revision. header: read when `by` is `header`; `user` is the body's `user`."""

    by: StickySource
    header: str = "x-session-id"


class ShadowPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Send a copy of this percentage of requests to a revision; its answers are measured and thrown away."""

    revision: str
    percent: int = 100


class CachePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answer a deterministic request that was answered before from memory; equal requests at once run one time.

    Kept per API key: nobody sees, or can time, another's answers.
    """

    max_bytes: int = 64 * 2**20
    ttl_seconds: float = 3600.0


class BalancerName(StrEnum):
    """How a replica is chosen (docs/balancing.md)."""

    PREFIX_AFFINITY = "prefix_affinity"
    LEAST_LOADED = "least_loaded"
    POWER_OF_TWO = "power_of_two"
    ROUND_ROBIN = "round_robin"


class GatewayPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gateway does for one service.

    deadline_seconds: from arrival to the last byte; None = none. hold_seconds: how long a request waits for a replica
    when there is none; max_held: how many may. retry_ratio: retries per request on average, before the first byte only.
    """

    balancer: BalancerName = BalancerName.PREFIX_AFFINITY
    deadline_seconds: float | None = None
    hold_seconds: float = 120.0
    max_held: int = 1000
    retry_ratio: float = 0.1
    sticky: StickyPolicy | None = None
    shadow: ShadowPolicy | None = None
    cache: CachePolicy | None = None


class RevisionTemplate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one replica runs. A change of any of it makes a new revision.

    adapters: LoRA adapters by the name clients use, each a directory. engine: None = the best for machine and model.
    serve_args: more flags of `argosy serve`, by name without dashes (`max-waiting: 64`); refused if unknown.
    """

    model: str
    engine: str | None = None
    engine_settings: EngineSettings = EngineSettings()
    adapters: dict[str, str] = {}
    resources: Resources = Resources()
    serve_args: dict[str, str | int | float | bool] = {}
    start_timeout_seconds: float = 600.0
    shutdown_grace_seconds: float = 30.0


class InferenceServiceSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user declares.

    traffic: revision (`v1`) → percent, together 100; empty = all to the newest good revision (by `rollout`).
    warm_spares: replicas kept loaded and unrouted, so that scaling up takes no loading.
    paused: leave the rollout where it is. `argosy rollout undo` puts an older revision's template back: a template
    that a revision has already leads to that revision, not to a new one.
    """

    template: RevisionTemplate
    scaling: ScalingPolicy = ScalingPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    gateway: GatewayPolicy = GatewayPolicy()
    traffic: dict[str, int] = {}
    warm_spares: int = 0
    paused: bool = False


class ServicePhase(StrEnum):
    """How a service is, in one word: the same in lists and details."""

    PENDING = "pending"
    PROGRESSING = "progressing"
    READY = "ready"
    DEGRADED = "degraded"
    IDLE = "idle"
    FAILED = "failed"


class RolloutPhase(StrEnum):
    """Where a rollout is. `rolled_back` stays until the spec changes."""

    STABLE = "stable"
    PROGRESSING = "progressing"
    PROMOTING = "promoting"
    PAUSED = "paused"
    ROLLED_BACK = "rolled_back"


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The rollout under way. stable, target: revisions (`v1`); step: index into the promotion's steps.

    Times are unix seconds.
    """

    phase: RolloutPhase = RolloutPhase.STABLE
    stable: str = ""
    target: str = ""
    step: int = 0
    started_at: float = 0.0
    step_started_at: float = 0.0
    progressed_at: float = 0.0
    message: str = ""


class RevisionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One revision as it runs. weight: percent of the traffic. message: why replicas are missing."""

    revision: str
    desired_replicas: int
    ready_replicas: int
    spare_replicas: int = 0
    weight: int = 0
    message: str = ""


class InferenceServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller saw last. observed_generation: the spec it speaks of. scaling_message: why so many replicas.

    woken_at: when the gateway last asked for a replica of a service that had none; unix seconds.
    """

    observed_generation: int = 0
    phase: ServicePhase = ServicePhase.PENDING
    conditions: tuple[Condition, ...] = ()
    revisions: tuple[RevisionStatus, ...] = ()
    rollout: RolloutStatus = RolloutStatus()
    desired_replicas: int = 0
    ready_replicas: int = 0
    scaling_message: str = ""
    woken_at: float = 0.0


class InferenceService(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named service: desired (spec) and observed (status), apart."""

    metadata: Metadata
    spec: InferenceServiceSpec
    status: InferenceServiceStatus = InferenceServiceStatus()


class RevisionSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An immutable snapshot of a template. number: 1, 2, … in the order they were made. digest: of the template."""

    service: str
    number: int
    template: RevisionTemplate
    digest: str


class Revision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The target of traffic weights. Its metadata's name is `chat-v3`; users say `v3`."""

    metadata: Metadata
    spec: RevisionSpec

    @property
    def short_name(self) -> str:
        """`v3`: what users write in traffic weights."""
        return f"v{self.spec.number}"
