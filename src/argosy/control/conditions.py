"""How a service is, in conditions and one word, from what was decided and what runs. Pure.

Conditions: `Ready` (can it answer), `Progressing` (is a rollout under way), `Scaling` (do replicas follow figures),
`Synced` (have backend and store taken what was decided).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from argosy.control.reasons import ConditionReason
from argosy.control.rollout import NONE_IS_GOOD
from argosy.control.running import Running, total_ready
from argosy.core.errors import BackendError, StoreError, Unschedulable
from argosy.core.inference_service import RolloutPhase, RolloutStatus, ServicePhase
from argosy.core.metadata import Condition, ConditionStatus
from argosy.core.scaling import ScalingDecision

READY = "Ready"
PROGRESSING = "Progressing"
SCALING = "Scaling"
SYNCED = "Synced"


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """What the conditions are read from. is_stale: no gateway reports. is_stopped: max_replicas is 0."""

    running: Mapping[str, Running]
    rollout: RolloutStatus
    decision: ScalingDecision
    is_stale: bool = False
    is_stopped: bool = False

    @property
    def ready(self) -> int:
        """Replicas of all revisions that take requests."""
        return total_ready(self.running)

    @property
    def failing(self) -> int:
        """Replicas that crashed or do not answer."""
        return sum(each.failing for each in self.running.values())

    @property
    def pending(self) -> int:
        """Replicas for which there is no room."""
        return sum(each.pending for each in self.running.values())

    @property
    def trouble(self) -> str:
        """The first thing that is wrong, in words."""
        return next((each.message for each in self.running.values() if each.message), "")


def conditions_of(picture: Picture, before: Iterable[Condition], now: float) -> tuple[Condition, ...]:
    """Ready, Progressing and Scaling; the others of before stay. Times change only with the status."""
    made = (_ready(picture), _progressing(picture.rollout), _scaling(picture))
    kept = [each for each in before if each.type == SYNCED]
    return tuple(since(each, before, now) for each in (*made, *kept))


def since(condition: Condition, before: Iterable[Condition], now: float) -> Condition:
    """The condition with the time since which it has its status."""
    old = next((each for each in before if each.type == condition.type), None)
    at = old.last_transition_at if old is not None and old.status is condition.status else now
    return msgspec.structs.replace(condition, last_transition_at=at)


def phase_of(picture: Picture) -> ServicePhase:
    """One word for it."""
    desired, rollout = picture.decision.replicas, picture.rollout
    if rollout.phase is RolloutPhase.ROLLED_BACK:
        return ServicePhase.DEGRADED
    if rollout.phase is not RolloutPhase.STABLE and not (picture.failing and not picture.ready):
        return ServicePhase.PROGRESSING if picture.running else ServicePhase.PENDING
    if desired == 0:
        return ServicePhase.IDLE
    if picture.ready == 0:
        return ServicePhase.FAILED if picture.failing else ServicePhase.PROGRESSING
    short = picture.ready < desired
    return ServicePhase.DEGRADED if short and (picture.failing or picture.pending) else ServicePhase.READY


def synced_condition(error: Exception | None) -> Condition:
    """Whether everything decided has been taken, or what stood in the way."""
    if error is None:
        return _condition(SYNCED, ConditionStatus.TRUE, ConditionReason.APPLIED, "")
    match error:
        case Unschedulable():
            reason = ConditionReason.UNSCHEDULABLE
        case BackendError():
            reason = ConditionReason.BACKEND_FAILED
        case StoreError():
            reason = ConditionReason.STORE_FAILED
        case TimeoutError():
            reason = ConditionReason.BACKEND_FAILED
        case _:
            reason = ConditionReason.INTERNAL_ERROR
    message = str(error) or type(error).__name__
    return _condition(SYNCED, ConditionStatus.FALSE, reason, message)


def refused_condition(message: str) -> Condition:
    """Ready is false because the stored spec cannot be followed."""
    return _condition(READY, ConditionStatus.FALSE, ConditionReason.SPEC_REFUSED, message)


def _ready(picture: Picture) -> Condition:
    desired = picture.decision.replicas
    if picture.ready > 0:
        message = f"{picture.ready} of {_replicas(max(desired, picture.ready))} answer"
        return _condition(READY, ConditionStatus.TRUE, ConditionReason.REPLICAS_READY, message)
    if picture.is_stopped:
        message = "max_replicas is 0: raise it to let replicas run"
        return _condition(READY, ConditionStatus.FALSE, ConditionReason.STOPPED, message)
    if desired == 0 and picture.rollout.phase is RolloutPhase.STABLE:
        message = "no replica runs; the first request starts one"
        return _condition(READY, ConditionStatus.TRUE, ConditionReason.IDLE, message)
    if picture.failing:
        trouble = picture.trouble or "replicas that failed start again"
        return _condition(READY, ConditionStatus.FALSE, ConditionReason.REPLICAS_FAILING, trouble)
    if picture.pending:
        return _condition(READY, ConditionStatus.FALSE, ConditionReason.WAITING_FOR_CAPACITY, picture.trouble)
    if not picture.running:
        return _condition(READY, ConditionStatus.FALSE, ConditionReason.NOTHING_RUNS, "no replica has been made yet")
    starting = sum(each.starting for each in picture.running.values())
    message = f"{_replicas(starting or desired)} starting"
    return _condition(READY, ConditionStatus.FALSE, ConditionReason.STARTING, message)


def _progressing(rollout: RolloutStatus) -> Condition:
    by_phase = {
        RolloutPhase.PROGRESSING: (ConditionStatus.TRUE, ConditionReason.ROLLING_OUT),
        RolloutPhase.PROMOTING: (ConditionStatus.TRUE, ConditionReason.PROMOTING),
        RolloutPhase.PAUSED: (ConditionStatus.FALSE, ConditionReason.ROLLOUT_PAUSED),
        RolloutPhase.ROLLED_BACK: (ConditionStatus.FALSE, ConditionReason.ROLLED_BACK),
        RolloutPhase.STABLE: (ConditionStatus.FALSE, ConditionReason.ROLLOUT_COMPLETE),
    }
    status, reason = by_phase[rollout.phase]
    if rollout.phase is RolloutPhase.PROGRESSING and rollout.message.endswith(NONE_IS_GOOD):
        status, reason = ConditionStatus.FALSE, ConditionReason.PROGRESS_DEADLINE_EXCEEDED
    if rollout.phase is RolloutPhase.STABLE and rollout.message:
        reason = ConditionReason.TRAFFIC_SET
    return _condition(PROGRESSING, status, reason, rollout.message)


def _scaling(picture: Picture) -> Condition:
    decision = picture.decision
    if decision.reason == ConditionReason.FIXED:
        return _condition(SCALING, ConditionStatus.FALSE, ConditionReason.FIXED, decision.message)
    if picture.is_stale:
        message = f"no gateway reports: held at {decision.replicas}"
        return _condition(SCALING, ConditionStatus.UNKNOWN, ConditionReason.FIGURES_MISSING, message)
    return _condition(SCALING, ConditionStatus.TRUE, ConditionReason.SCALING_ACTIVE, decision.message)


def _replicas(number: int) -> str:
    return "1 replica" if number == 1 else f"{number} replicas"


def _condition(kind: str, status: ConditionStatus, reason: ConditionReason, message: str) -> Condition:
    return Condition(type=kind, status=status, reason=reason.value, message=message)
