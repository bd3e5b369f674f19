"""One service: what is declared, what runs, what was seen, and the time become what to do and what to say. Pure.

`reconcile` may be asked at any time and any number of times: it looks at what is, never at what was done before.
So a control plane that was killed between any two writes goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from argosy.control.course import course_of, idle_since, is_kept, wanted_workloads, wished_weights
from argosy.control.memory import ServiceMemory, StepMarks
from argosy.control.notes import Note
from argosy.control.promotion import Comparison, Verdict, gross_failure, verdict
from argosy.control.reasons import EventReason
from argosy.control.revisions import next_revision, outdated, revision_of
from argosy.control.rollout import IN_PROGRESS, RolloutFacts, next_rollout
from argosy.control.running import ABSENT
from argosy.control.scene import Observed, Scene, needed_replicas, promotion_under_way, scene_of
from argosy.control.service_status import status_notes, status_of
from argosy.control.traffic_weights import effective_weights
from argosy.core.inference_service import InferenceServiceStatus, Revision, RolloutStatus
from argosy.core.workload import Workload


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, in this order: create revisions, publish the weights, apply and delete workloads, write the status.

    apply: those that shrink come first. memory: for the next look. requeue_after_seconds: when to look again at the
    latest; None = when something changes.
    """

    create_revision: Revision | None
    weights: dict[str, int]
    apply: tuple[Workload, ...]
    delete: tuple[str, ...]
    delete_revisions: tuple[Revision, ...]
    status: InferenceServiceStatus
    notes: tuple[Note, ...]
    memory: ServiceMemory
    requeue_after_seconds: float | None


def reconcile(observed: Observed, now: float) -> Decision:
    """What to do about one service, and how it is."""
    service = observed.service
    existing = revision_of(service.spec.template, observed.revisions)
    made = existing if existing is not None else next_revision(service, observed.revisions)
    scene = scene_of(observed, made)
    judged = _judged(scene, service.status.rollout, now)
    step = next_rollout(service.spec.rollout, service.status.rollout, _facts(scene, judged, now))
    wish = wished_weights(scene, step.status)
    weights = effective_weights(wish, scene.ready)
    zero_since = idle_since(observed.memory.zero_since, scene, weights, now)
    course = course_of(scene, step.status, weights, zero_since, now)
    memory = msgspec.structs.replace(
        observed.memory,
        decision=scene.decision,
        zero_since=zero_since,
        marks=_marks(observed, step.status),
        verdict=judged,
    )
    status = status_of(scene, step.status, course, weights, now)
    forgotten = _forgotten(scene, step.status)
    notes = (*((_created(made),) if existing is None else ()), *(_deleted(each) for each in forgotten))
    return Decision(
        create_revision=None if existing is not None else made,
        weights=weights,
        apply=wanted_workloads(scene, course),
        delete=tuple(
            f"{service.metadata.name}-{name}" for name in scene.running if not is_kept(scene, course, step.status, name)
        ),
        delete_revisions=forgotten,
        status=status,
        notes=(*notes, *step.notes, *status_notes(scene, status)),
        memory=memory,
        requeue_after_seconds=_requeue(scene, step.status, zero_since, now),
    )


def _facts(scene: Scene, judged: Verdict | None, now: float) -> RolloutFacts:
    observed = scene.observed
    status, spec = observed.service.status, observed.service.spec
    target = scene.running.get(scene.target, ABSENT)
    before = next((each.ready_replicas for each in status.revisions if each.revision == scene.target), 0)
    return RolloutFacts(
        target=scene.target,
        is_return=scene.is_return(status.rollout.stable),
        is_spec_changed=observed.service.metadata.generation > status.observed_generation,
        is_paused=spec.paused,
        traffic=scene.traffic,
        ready=target.ready,
        ready_before=before,
        needed=needed_replicas(scene, promotion_under_way(scene, status.rollout), status.rollout.step),
        is_looping=target.asked > 0 and target.looping >= target.asked,
        verdict=judged,
        watched_since=observed.memory.watched_since,
        now=now,
    )


def _judged(scene: Scene, rollout: RolloutStatus, now: float) -> Verdict | None:
    """The verdict on a promotion under way; None if there is nothing to judge."""
    promotion, marks = promotion_under_way(scene, rollout), scene.observed.memory.marks
    is_promoting = rollout.phase in IN_PROGRESS and rollout.target == scene.target and rollout.started_at > 0.0
    if promotion is None or not is_promoting or marks is None or marks.target != rollout.target:
        return None
    totals = scene.observed.totals
    old = totals.of(rollout.stable, marks.step_begin)
    if old.answers < promotion.min_requests:
        old = totals.of(rollout.stable, marks.rollout)
    seen = Comparison(
        target=rollout.target, stable=rollout.stable, new=totals.of(rollout.target, marks.step_begin), old=old
    )
    gross = gross_failure(promotion, seen)
    if gross is not None:
        return gross
    since = max(rollout.step_started_at, scene.observed.memory.watched_since)
    is_due = rollout.step_started_at > 0.0 and now - since >= promotion.interval_seconds
    return verdict(promotion, seen) if is_due else None


def _marks(observed: Observed, rollout: RolloutStatus) -> StepMarks | None:
    """Where the evidence of the present step begins."""
    if rollout.phase not in IN_PROGRESS or rollout.started_at == 0.0:
        return None
    marks, totals = observed.memory.marks, observed.totals
    if marks is None or marks.target != rollout.target:
        return StepMarks(target=rollout.target, step=rollout.step, rollout=totals, step_begin=totals)
    if marks.step != rollout.step:
        return msgspec.structs.replace(marks, step=rollout.step, step_begin=totals)
    return marks


def _forgotten(scene: Scene, rollout: RolloutStatus) -> tuple[Revision, ...]:
    spec = scene.observed.service.spec
    in_use = {*scene.running, *spec.traffic, rollout.stable, rollout.target, scene.target}
    if spec.gateway.shadow is not None:
        in_use.add(spec.gateway.shadow.revision)
    return outdated(scene.observed.revisions, in_use, spec.rollout.history_limit)


def _created(revision: Revision) -> Note:
    message = f"{revision.short_name} runs {revision.spec.template.model}"
    return Note(reason=EventReason.REVISION_CREATED, message=message, subject=revision.short_name)


def _deleted(revision: Revision) -> Note:
    message = f"{revision.short_name} ({revision.spec.template.model}) left the history"
    return Note(reason=EventReason.REVISION_DELETED, message=message, subject=revision.short_name)


def _requeue(scene: Scene, rollout: RolloutStatus, zero_since: Mapping[str, float], now: float) -> float | None:
    """Seconds until something is due by time alone."""
    settings, policy = scene.observed.settings, scene.observed.service.spec.rollout
    due = [at + settings.linger_seconds for at in zero_since.values()]
    if rollout.phase in IN_PROGRESS and rollout.started_at > 0.0:
        watched = scene.observed.memory.watched_since
        due.append(max(rollout.progressed_at, watched) + policy.progress_deadline_seconds)
        if policy.promotion is not None:
            due.append(now + settings.scaling_period_seconds)
    later = [at - now for at in due if at > now]
    return min(later, default=None) if later else None
