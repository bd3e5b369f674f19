"""Where replicas and traffic go next, from where the rollout is: weights, counts, workloads. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from argosy.control.replica_counts import Goals, rolling_counts, split_by_weight, stepped_counts
from argosy.control.revisions import number_of
from argosy.control.rollout import IN_PROGRESS, replicas_for, step_percent
from argosy.control.running import ABSENT, Running
from argosy.control.scene import Scene, needed_replicas, promotion_under_way
from argosy.control.traffic_weights import LeadShare, lead_weights
from argosy.control.workloads import serving_workload
from argosy.core.inference_service import RolloutPhase, RolloutStatus
from argosy.core.workload import Workload


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas per revision from now on, and whose the warm spares are."""

    counts: dict[str, int]
    spares_of: str


def leading(scene: Scene, rollout: RolloutStatus) -> str:
    """The revision that takes over, or back."""
    is_held = rollout.phase is RolloutPhase.PAUSED and rollout.started_at == 0.0
    if (is_held or rollout.phase is RolloutPhase.ROLLED_BACK) and rollout.stable in scene.revisions:
        return rollout.stable
    return rollout.target


def _others(scene: Scene, rollout: RolloutStatus, lead: str) -> list[str]:
    """Who shares the rest of the traffic: the good revision first, then the newest, no more than are needed.

    Those that are not needed lose their share, and then their replicas. A revision that lost a promotion, or was
    replaced while it was measured, gets nothing while the good one answers.
    """
    stable, ready = rollout.stable, scene.ready
    names = sorted(
        (name for name in scene.running if name != lead), key=lambda name: (name != stable, -number_of(name))
    )
    is_measured = scene.observed.service.spec.rollout.promotion is not None
    trusted = [name for name in names if name == stable]
    if is_measured and any(ready.get(name, 0) for name in (*trusted, *([lead] if lead == stable else []))):
        return trusted
    missing = max(1, scene.limits.least_ready - ready.get(lead, 0))
    needed = []
    for name in names:
        if missing > 0 and ready.get(name, 0):
            needed.append(name)
            missing -= ready[name]
    return needed


def wished_weights(scene: Scene, rollout: RolloutStatus) -> dict[str, int]:
    if scene.traffic:
        return scene.traffic
    lead = leading(scene, rollout)
    promotion = promotion_under_way(scene, rollout) if rollout.phase in IN_PROGRESS and lead == rollout.target else None
    share = LeadShare(
        percent=step_percent(promotion, rollout.step),
        needed=needed_replicas(scene, promotion, rollout.step),
        before=step_percent(promotion, rollout.step - 1) if promotion else 0,
    )
    return lead_weights(lead, share, _others(scene, rollout, lead), scene.ready)


def idle_since(before: Mapping[str, float], scene: Scene, weights: Mapping[str, int], now: float) -> dict[str, float]:
    return {name: before.get(name, now) for name in scene.running if not weights.get(name)}


def course_of(
    scene: Scene, rollout: RolloutStatus, weights: Mapping[str, int], zero_since: Mapping[str, float], now: float
) -> Course:
    linger = scene.observed.settings.linger_seconds
    frozen = frozenset(name for name, at in zero_since.items() if now - at < linger and scene.running[name].ready)
    serving = frozenset(name for name, weight in weights.items() if weight and name in scene.running)
    if scene.traffic:
        return _pinned_course(scene, serving, frozen)
    lead = leading(scene, rollout)
    goals = _goals(scene, rollout, lead)
    goals = msgspec.structs.replace(goals, serving=serving, frozen=frozen - {lead})
    counted = _without_shadow(scene, {lead, rollout.stable} | serving)
    counts = rolling_counts(goals, counted, scene.limits)
    is_open = rollout.phase in IN_PROGRESS and rollout.stable in scene.running
    return Course(counts=_with_shadow(scene, counts), spares_of=rollout.stable if is_open else lead)


def _goals(scene: Scene, rollout: RolloutStatus, lead: str) -> Goals:
    desired = scene.decision.replicas
    is_moving = rollout.phase in IN_PROGRESS and lead == rollout.target
    if not is_moving:
        return Goals(lead=lead, lead_goal=desired)
    keep = rollout.stable if rollout.stable in scene.running else ""
    if rollout.phase is RolloutPhase.PAUSED and promotion_under_way(scene, rollout) is None:
        goal = scene.running.get(lead, ABSENT).asked
        return Goals(lead=lead, lead_goal=goal, keep=keep)
    promotion = promotion_under_way(scene, rollout)
    if promotion is None:
        return Goals(lead=lead, lead_goal=max(1, desired), keep=keep)
    goal = replicas_for(desired, step_percent(promotion, rollout.step))
    floor = min(desired, max(1, desired + scene.limits.surge - goal)) if keep else 0
    return Goals(lead=lead, lead_goal=goal, keep=keep, keep_floor=floor)


def _pinned_course(scene: Scene, serving: frozenset[str], frozen: frozenset[str]) -> Course:
    wanted = split_by_weight(scene.decision.replicas, scene.traffic)
    desired = sum(wanted.values())
    limits = msgspec.structs.replace(scene.limits, desired=desired)
    counted = _without_shadow(scene, serving | wanted.keys())
    leaving = {name: int(limits.least_ready > 0 and name in serving) for name in counted if name not in wanted}
    growing = sorted(wanted, key=lambda name: (-scene.traffic[name], -number_of(name)))
    counts = stepped_counts({**leaving, **wanted}, counted, limits, growing=growing, frozen=frozen - wanted.keys())
    newest = max((name for name, weight in scene.traffic.items() if weight), key=number_of, default=scene.target)
    return Course(counts=_with_shadow(scene, counts), spares_of=newest)


def _shadow(scene: Scene) -> str:
    """The revision that gets copies of requests; "" = none, or nothing runs anyway."""
    shadow = scene.observed.service.spec.gateway.shadow
    if shadow is None or shadow.revision not in scene.revisions or not scene.decision.replicas:
        return ""
    return shadow.revision


def _without_shadow(scene: Scene, others: Collection[str]) -> dict[str, Running]:
    """What runs, less a shadow that is nothing else: its replica stands beside all limits."""
    shadow = _shadow(scene)
    return {name: each for name, each in scene.running.items() if name != shadow or name in others}


def _with_shadow(scene: Scene, counts: dict[str, int]) -> dict[str, int]:
    """A shadow runs one replica as long as any other revision runs."""
    shadow = _shadow(scene)
    return {**counts, shadow: max(1, counts.get(shadow, 0))} if shadow else counts


def is_kept(scene: Scene, course: Course, rollout: RolloutStatus, name: str) -> bool:
    """Whether a revision's workload stays, be it with no replica (a service that sleeps)."""
    return course.counts.get(name, 0) > 0 or name in scene.traffic or name == leading(scene, rollout)


def wanted_workloads(scene: Scene, course: Course) -> tuple[Workload, ...]:
    """All that shall run. Those that give replicas up come first, so that there is room for the others."""
    observed = scene.observed
    spares = observed.service.spec.warm_spares if observed.service.spec.scaling.max_replicas > 0 else 0
    wanted = []
    for name, count in course.counts.items():
        own_spares = spares if name == course.spares_of else 0
        if count or own_spares or name == course.spares_of or name in scene.traffic:
            wanted.append(
                serving_workload(observed.service, scene.revisions[name], count, own_spares, observed.settings)
            )
    asked = {name: each.asked for name, each in scene.running.items()}
    by_growth = {each.name: each.replicas - asked.get(each.name.rpartition("-")[2], 0) for each in wanted}
    return tuple(sorted(wanted, key=lambda each: (by_growth[each.name] > 0, each.name)))
