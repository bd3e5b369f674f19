"""One service as a decision sees it: what was observed, read into the terms of a rollout. Pure."""

from __future__ import annotations

import msgspec

from argosy.control.desired import bounded_decision
from argosy.control.memory import ServiceMemory
from argosy.control.replica_counts import Limits
from argosy.control.revisions import number_of
from argosy.control.rollout import promotion_of, replicas_for, step_percent
from argosy.control.running import Running, running_of
from argosy.control.settings import ControlSettings
from argosy.control.traffic import ServiceTotals
from argosy.core.inference_service import InferenceService, PromotionPolicy, Revision, RolloutStatus
from argosy.core.scaling import ScalingDecision
from argosy.core.workload import WorkloadStatus


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a decision sees of one service. decision: the autoscaler's last. is_stale: no gateway reports."""

    service: InferenceService
    revisions: tuple[Revision, ...]
    statuses: tuple[WorkloadStatus, ...]
    totals: ServiceTotals
    memory: ServiceMemory
    decision: ScalingDecision
    settings: ControlSettings
    is_stale: bool = False


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """The observation, read into the terms of a rollout."""

    observed: Observed
    revisions: dict[str, Revision]
    target: str
    running: dict[str, Running]
    decision: ScalingDecision
    traffic: dict[str, int]

    @property
    def ready(self) -> dict[str, int]:
        return {name: each.ready for name, each in self.running.items()}

    @property
    def limits(self) -> Limits:
        policy, desired = self.observed.service.spec.rollout, self.decision.replicas
        surge = max(policy.max_surge, 1) if desired == 0 else policy.max_surge
        return Limits(desired=desired, surge=surge, unavailable=policy.max_unavailable)

    def is_return(self, stable: str) -> bool:
        """Whether the target is older than the good revision."""
        return bool(stable) and number_of(self.target) < number_of(stable)


def scene_of(observed: Observed, target: Revision) -> Scene:
    revisions = {each.short_name: each for each in (*observed.revisions, target)}
    traffic = {name: weight for name, weight in observed.service.spec.traffic.items() if name in revisions}
    running = {name: each for name, each in running_of(observed.statuses).items() if name in revisions}
    return Scene(
        observed=observed,
        revisions=revisions,
        target=target.short_name,
        running=running,
        decision=bounded_decision(observed.service, observed.decision),
        traffic=traffic,
    )


def promotion_under_way(scene: Scene, rollout: RolloutStatus) -> PromotionPolicy | None:
    policy = scene.observed.service.spec.rollout
    return promotion_of(policy, rollout.stable, is_return=scene.is_return(rollout.stable))


def needed_replicas(scene: Scene, promotion: PromotionPolicy | None, step: int) -> int:
    """Ready replicas of the target that carry this step's share."""
    percent = step_percent(promotion, step)
    enough = max(1, scene.limits.least_ready)
    return enough if percent >= 100 else min(replicas_for(scene.decision.replicas, percent), enough)
