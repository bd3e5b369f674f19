"""Every reason the control plane gives, one CamelCase word each, with what it means: the source of docs/events.md.

A reason is for programs and for searching; the message beside it is for people and may change.
"""

from __future__ import annotations

from enum import StrEnum


class _Word(StrEnum):
    """A word that knows what it means."""

    meaning: str

    def __new__(cls, word: str, meaning: str) -> _Word:
        """The word is the value; the meaning comes along."""
        made = str.__new__(cls, word)
        made._value_ = word
        made.meaning = meaning
        return made


class EventReason(_Word):
    """What happened to a service. The subject of the event is the service or a revision."""

    REVISION_CREATED = "RevisionCreated", "A changed template became a new revision."
    REVISION_DELETED = "RevisionDeleted", "An old revision left the history; it cannot be returned to any more."
    ROLLOUT_STARTED = "RolloutStarted", "A revision began to take over."
    ROLLOUT_STEP = "RolloutStep", "The new revision held against the old one and gets a larger share of the traffic."
    ROLLOUT_COMPLETE = "RolloutComplete", "The new revision serves all traffic; it is the good one to return to."
    ROLLOUT_PAUSED = "RolloutPaused", "A step waits: the spec says so, or too few requests came for a verdict."
    ROLLOUT_RESUMED = "RolloutResumed", "A paused rollout goes on."
    ROLLED_BACK = "RolledBack", "The new revision failed; the last good one serves all traffic again."
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded", "Replicas did not become ready in time, and none is good."
    TRAFFIC_SET = "TrafficSet", "The spec's own weights rule the traffic now."
    SCALED_UP = "ScaledUp", "More replicas are wanted."
    SCALED_DOWN = "ScaledDown", "Fewer replicas are wanted."
    SCALED_TO_ZERO = "ScaledToZero", "Nobody asked for a while: no replica is kept."
    WOKEN = "Woken", "A request waits at a gateway and no replica runs: one is started."
    SERVICE_READY = "ServiceReady", "The service can answer."
    SERVICE_NOT_READY = "ServiceNotReady", "The service cannot answer."
    REPLICA_FAILED = "ReplicaFailed", "A replica ended by itself or failed its probe; it is started again."
    RECONCILE_FAILED = "ReconcileFailed", "The backend or the store refused a change; it is tried again."
    SPEC_REFUSED = "SpecRefused", "The stored spec cannot be followed; what runs is left as it is."


class ConditionReason(_Word):
    """Why a condition of a service holds, or does not."""

    REPLICAS_READY = "ReplicasReady", "Ready: as many replicas answer as are needed."
    IDLE = "Idle", "Ready: no replica runs, and the first request starts one."
    STOPPED = "Stopped", "Not ready: max_replicas is 0."
    STARTING = "Starting", "Not ready: the first replicas are starting."
    WAITING_FOR_CAPACITY = "WaitingForCapacity", "Not ready: the backend has no room for a replica."
    REPLICAS_FAILING = "ReplicasFailing", "Not ready: replicas end or fail their probes."
    NOTHING_RUNS = "NothingRuns", "Not ready: no replica has been made yet."
    SPEC_REFUSED = "SpecRefused", "Not ready: the stored spec cannot be followed."
    ROLLOUT_COMPLETE = "RolloutComplete", "Not progressing: the newest revision serves."
    ROLLING_OUT = "RollingOut", "Progressing: replicas of the new revision are being started."
    PROMOTING = "Promoting", "Progressing: the new revision is measured against the old one."
    ROLLOUT_PAUSED = "RolloutPaused", "Not progressing: the rollout waits for a person or for requests."
    ROLLED_BACK = "RolledBack", "Not progressing: the new revision failed and the last good one serves."
    PROGRESS_DEADLINE_EXCEEDED = (
        "ProgressDeadlineExceeded",
        "Not progressing: no good revision, and none becomes ready.",
    )
    TRAFFIC_SET = "TrafficSet", "Not progressing: the spec's own weights rule."
    FIXED = "Fixed", "Not scaling: min_replicas and max_replicas are equal."
    SCALING_ACTIVE = "ScalingActive", "Scaling: figures are fresh, replicas follow them."
    FIGURES_MISSING = "FiguresMissing", "Unknown: no gateway reports, so the number of replicas is held."
    APPLIED = "Applied", "Synced: the backend and the store have taken everything."
    BACKEND_FAILED = "BackendFailed", "Not synced: the backend refused; it is tried again."
    STORE_FAILED = "StoreFailed", "Not synced: the store refused; it is tried again."
    UNSCHEDULABLE = "Unschedulable", "Not synced: a replica can never fit where the backend runs them."
    INTERNAL_ERROR = "InternalError", "Not synced: a mistake of ours; the log has the traceback."
