"""How many replicas: the policy a user writes, the sample a decision sees, and the decision with its sentence."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ScalingMetric(StrEnum):
    """What the number of replicas follows. Targets are per replica, except SLO's.

    slo: the share of requests that meet the service's SLO, steered by measured capacity (target: attainment, 0 to 1).
    concurrency: requests in flight. queue_length: requests waiting. queue_time: seconds a request waits before it
    runs. kv_cache_usage: share of the KV cache in use.
    """

    SLO = "slo"
    CONCURRENCY = "concurrency"
    QUEUE_LENGTH = "queue_length"
    QUEUE_TIME = "queue_time"
    KV_CACHE_USAGE = "kv_cache_usage"


DEFAULT_TARGETS = {
    ScalingMetric.SLO: 0.99,
    ScalingMetric.CONCURRENCY: 16.0,
    ScalingMetric.QUEUE_LENGTH: 2.0,
    ScalingMetric.QUEUE_TIME: 0.3,
    ScalingMetric.KV_CACHE_USAGE: 0.8,
}


class Slo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a good request is: first token and time per output token within these seconds, and no error."""

    ttft_seconds: float = 1.0
    tpot_seconds: float = 0.1


class ScalingPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a service scales between min_replicas and max_replicas. min_replicas 0 allows none at all.

    target: per replica, in the metric's unit; None = `DEFAULT_TARGETS`. tolerance: no change while within this share.
    scale_down_stabilization_seconds: the highest wish of this time rules before replicas are taken away;
    scale_up_stabilization_seconds: the lowest before they are added.
    panic_window_seconds, panic_threshold: if the need of the short window is this many times what is ready, scale up
    at once and not down until it is over. scale_to_zero_after_seconds: idle time before the last replica goes.
    max_scale_up_ratio: at most this many times the ready replicas in one decision.
    Source: HPA v2 behavior, Knative KPA.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    metric: ScalingMetric = ScalingMetric.SLO
    target: float | None = None
    slo: Slo = Slo()
    tolerance: float = 0.1
    window_seconds: float = 60.0
    scale_up_stabilization_seconds: float = 0.0
    scale_down_stabilization_seconds: float = 60.0
    panic_window_seconds: float = 6.0
    panic_threshold: float = 2.0
    max_scale_up_ratio: float = 4.0
    scale_to_zero_after_seconds: float = 300.0


class ScalingSample(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one service between two decisions.

    now: monotonic seconds of the sample; interval_seconds: since the one before. ready, starting: replicas.
    Gauges (now): num_requests_running, num_requests_waiting (inside replicas), num_requests_held (at the gateway,
    for want of a replica), kv_cache_usage_ratio (mean over ready replicas).
    Counts over the interval: arrivals, completions, slo_good (of the completions), prompt_tokens, generation_tokens,
    queue_seconds (sum over requests that began to run), started (how many those are).
    is_stale: a source did not answer or restarted; the numbers must not be trusted to fall.
    """

    now: float
    interval_seconds: float
    ready_replicas: int
    starting_replicas: int = 0
    num_requests_running: int = 0
    num_requests_waiting: int = 0
    num_requests_held: int = 0
    max_num_seqs: int = 0
    kv_cache_usage_ratio: float = 0.0
    arrivals: int = 0
    completions: int = 0
    slo_good: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    started: int = 0
    queue_seconds: float = 0.0
    is_stale: bool = False


class ScalingDecision(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas shall run, and the sentence that says why. is_limited: the policy's bounds held it."""

    replicas: int
    reason: str
    message: str
    is_limited: bool = False
