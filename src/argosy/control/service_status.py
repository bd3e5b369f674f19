"""What is written into a service's status, and what is told of how it changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from argosy.control.conditions import Picture, conditions_of, phase_of, refused_condition, since
from argosy.control.course import Course
from argosy.control.desired import scaling_notes
from argosy.control.notes import Note, warning
from argosy.control.reasons import ConditionReason, EventReason
from argosy.control.revisions import number_of
from argosy.control.running import ABSENT
from argosy.control.scene import Scene
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceStatus,
    RevisionStatus,
    RolloutStatus,
    ServicePhase,
)
from argosy.core.metadata import ConditionStatus

# One sentence of an event; the log has the rest.
_EVENT_CHARS = 200


def status_of(
    scene: Scene, rollout: RolloutStatus, course: Course, weights: Mapping[str, int], now: float
) -> InferenceServiceStatus:
    before, decision = scene.observed.service.status, scene.decision
    is_same = (before.desired_replicas, bool(before.scaling_message)) == (decision.replicas, True)
    # A sentence with figures differs with each decision: it is written when the number changes.
    message = before.scaling_message if is_same else decision.message
    picture = Picture(
        running=scene.running,
        rollout=rollout,
        decision=msgspec.structs.replace(decision, message=message),
        is_stale=scene.observed.is_stale,
        is_stopped=scene.observed.service.spec.scaling.max_replicas == 0,
    )
    names = sorted({*course.counts, *scene.running} - {""}, key=lambda name: number_of(name))
    shown = [name for name in names if course.counts.get(name) or name in scene.running]
    is_woken = before.observed_generation > 0 and before.desired_replicas == 0 < decision.replicas
    return InferenceServiceStatus(
        observed_generation=scene.observed.service.metadata.generation,
        phase=phase_of(picture),
        conditions=conditions_of(picture, before.conditions, now),
        revisions=tuple(_revision_status(name, scene, course, weights) for name in shown),
        rollout=rollout,
        desired_replicas=decision.replicas,
        ready_replicas=picture.ready,
        scaling_message=message,
        woken_at=now if is_woken else before.woken_at,
    )


def refused_status(service: InferenceService, problem: str, now: float) -> tuple[InferenceServiceStatus, Note]:
    """The status of a service whose spec cannot be followed: all stays as it is, and says so."""
    before = service.status
    refused = since(refused_condition(problem), before.conditions, now)
    others = tuple(each for each in before.conditions if each.type != refused.type)
    status = msgspec.structs.replace(
        before,
        observed_generation=service.metadata.generation,
        phase=ServicePhase.FAILED,
        conditions=(refused, *others),
    )
    return status, warning(EventReason.SPEC_REFUSED, problem)


def _revision_status(name: str, scene: Scene, course: Course, weights: Mapping[str, int]) -> RevisionStatus:
    running = scene.running.get(name, ABSENT)
    return RevisionStatus(
        revision=name,
        desired_replicas=course.counts.get(name, 0),
        ready_replicas=running.ready,
        spare_replicas=running.spares,
        weight=weights.get(name, 0),
        message=running.message,
    )


def status_notes(scene: Scene, status: InferenceServiceStatus) -> tuple[Note, ...]:
    """What changed since the last status."""
    before = scene.observed.service.status
    notes: list[Note] = []
    if before.observed_generation:
        notes += scaling_notes(before.desired_replicas, scene.decision)
    was = next((each for each in before.conditions if each.type == "Ready"), None)
    is_now = next(each for each in status.conditions if each.type == "Ready")
    if is_now.status is ConditionStatus.TRUE and (was is None or was.status is not ConditionStatus.TRUE):
        if is_now.reason != ConditionReason.IDLE:
            notes.append(Note(reason=EventReason.SERVICE_READY, message=is_now.message))
    elif before.ready_replicas and is_now.status is ConditionStatus.FALSE:
        notes.append(warning(EventReason.SERVICE_NOT_READY, is_now.message))
    for name, running in scene.running.items():
        old = next((each for each in before.revisions if each.revision == name), None)
        if running.failing and running.message and (old is None or old.message != running.message):
            notes.append(warning(EventReason.REPLICA_FAILED, _short(running.message), name))
    return tuple(notes)


def _short(message: str) -> str:
    return message if len(message) <= _EVENT_CHARS else f"{message[: _EVENT_CHARS - 1]}…"
