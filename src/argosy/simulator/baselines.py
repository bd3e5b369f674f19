"""The autoscalers that people run today, as pure functions: what ours is measured against.

Each follows its source in formula, windows and pace; docs/simulator.md names the values. Metrics age as they do in
life: what is scraped every 15 or 60 seconds is as old as the last scrape.

Source: Kubernetes HPA v2 (autoscaling/v2, KEP-853); Knative KPA (pkg/autoscaler/scaling/autoscaler.go and
config-autoscaler); KEDA's prometheus trigger as in vLLM's production stack (threshold 5 on num_requests_waiting).
"""

from __future__ import annotations

import math

import msgspec

from argosy.control.scaling_history import Wish


class HpaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs of an HPA, with Kubernetes' defaults. Up: the larger of percent and pods per period; down: freely."""

    min_replicas: int = 1
    max_replicas: int = 64
    tolerance: float = 0.1
    down_stabilization_seconds: float = 300.0
    up_percent: float = 100.0
    up_pods: int = 4
    up_period_seconds: float = 15.0


class HpaHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Past recommendations, of which each is lower than all before it; and replica counts, for the pace."""

    falling: tuple[Wish, ...] = ()
    counts: tuple[Wish, ...] = ()


def hpa_utilisation(usage_ratio: float, target_ratio: float, *, ready: int, unready: int, tolerance: float) -> int:
    """What a `Resource` metric recommends: ceil(ready × usage / target), cautious about pods that are not ready.

    Those count as 0 when the rest says up, and not at all when it says down; if that turns the direction, nothing
    happens. Source: Kubernetes, pkg/controller/podautoscaler/replica_calculator.go GetResourceReplicas.
    """
    current = ready + unready
    if not ready:
        return current
    ratio = usage_ratio / target_ratio
    if not unready or ratio <= 1.0:
        return current if abs(ratio - 1.0) <= tolerance else math.ceil(ratio * ready - 1e-9)
    dampened = ratio * ready / current
    if dampened <= 1.0 + tolerance:
        return current
    return max(math.ceil(dampened * current - 1e-9), current)


def hpa_total(total: float, target_per_pod: float, *, current: int, tolerance: float) -> int:
    """What an `External` or `Object` metric with an AverageValue recommends: ceil(total / target)."""
    if current and abs(total / (target_per_pod * current) - 1.0) <= tolerance:
        return current
    return math.ceil(total / target_per_pod - 1e-9)


def hpa_replicas(
    settings: HpaSettings, recommended: int, current: int, history: HpaHistory, now: float
) -> tuple[int, HpaHistory]:
    """A recommendation, stabilised (highest of the window rules a fall), paced and bounded."""
    since = now - settings.down_stabilization_seconds
    if not history.falling:  # Kubernetes begins with the current count as its first recommendation.
        history = HpaHistory(falling=(Wish(at=now, replicas=current),))
    kept = [old for old in history.falling if old.at >= since and old.replicas > recommended]
    falling = (*kept, Wish(at=now, replicas=recommended))
    wanted = max(recommended, falling[0].replicas) if recommended < current else recommended
    wanted = min(wanted, current) if recommended < current else wanted
    counts = tuple(old for old in history.counts if old.at > now - settings.up_period_seconds)
    before = min((old.replicas for old in counts), default=current)
    pace = max(math.ceil(before * (1 + settings.up_percent / 100)), before + settings.up_pods)
    wanted = min(wanted, max(pace, current), settings.max_replicas)
    wanted = max(wanted, settings.min_replicas)
    return wanted, HpaHistory(falling=falling, counts=(*counts, Wish(at=now, replicas=current)))


class KpaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs of Knative's autoscaler, with its defaults: 70 % of 100 requests in flight per replica."""

    min_replicas: int = 1
    max_replicas: int = 64
    target: float = 70.0
    panic_threshold: float = 2.0
    stable_window_seconds: float = 60.0
    panic_window_seconds: float = 6.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0


class KpaHistory(msgspec.Struct, frozen=True, kw_only=True):
    """panic_at: when load was last beyond the threshold; None = calm."""

    panic_at: float | None = None
    max_panic_replicas: int = 0


def kpa_replicas(
    settings: KpaSettings, stable: float, panic: float, ready: int, history: KpaHistory, now: float
) -> tuple[int, KpaHistory]:
    """One tick. stable, panic: requests in flight, averaged over the two windows."""
    ready = max(ready, 1)
    most, least = math.ceil(settings.max_scale_up_rate * ready), math.floor(ready / settings.max_scale_down_rate)
    wanted_stable = math.ceil(stable / settings.target)
    wanted_panic = math.ceil(panic / settings.target)
    is_over = wanted_panic / ready >= settings.panic_threshold
    wanted_stable = min(max(wanted_stable, least), most)
    wanted_panic = min(max(wanted_panic, least), most)
    panic_at, peak = history.panic_at, history.max_panic_replicas
    if is_over:
        panic_at = now
    elif panic_at is not None and panic_at + settings.stable_window_seconds < now:
        panic_at, peak = None, 0
    wanted = wanted_stable
    if panic_at is not None:
        peak = max(peak, wanted_stable, wanted_panic)
        wanted = peak
    bounded = min(max(wanted, settings.min_replicas), settings.max_replicas)
    return bounded, KpaHistory(panic_at=panic_at, max_panic_replicas=peak)
