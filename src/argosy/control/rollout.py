"""Where a rollout is, and where it goes next. Pure.

    stable ─spec changed→ progressing ─ready→ stable
                        ↘ promoting ─a step held→ … ─last step held→ stable
    progressing, promoting ─too slow, failing again and again, worse→ rolled_back ─spec changed→ …
    progressing, promoting ⇄ paused (by the spec, or for want of requests)

Only what this file returns is written to `status.rollout`, so a control plane that starts anew goes on from there.
A return to an older revision (`argosy rollout undo`) is not measured step by step: it is needed at once.
"""

from __future__ import annotations

import math

import msgspec

from argosy.control.notes import Note, warning
from argosy.control.promotion import Verdict, VerdictKind
from argosy.control.reasons import EventReason
from argosy.control.revisions import number_of
from argosy.core.inference_service import PromotionPolicy, RolloutPhase, RolloutPolicy, RolloutStatus


class RolloutFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a step is decided from.

    target: the revision of the spec's template. is_return: it is older than the good one. is_spec_changed: since the
    last status was written. traffic: the spec's own weights. ready, ready_before: the target's replicas, now and in the
    last status; needed: of them, for the present step. is_looping: all of them fail again and again.
    watched_since: when this control plane began to look; what it did not see is nobody's fault.
    """

    target: str
    is_return: bool = False
    is_spec_changed: bool = False
    is_paused: bool = False
    traffic: dict[str, int] = {}
    ready: int = 0
    ready_before: int = 0
    needed: int = 1
    is_looping: bool = False
    verdict: Verdict | None = None
    watched_since: float = 0.0
    now: float


class RolloutStep(msgspec.Struct, frozen=True, kw_only=True):
    """The rollout after a look, and what to tell."""

    status: RolloutStatus
    notes: tuple[Note, ...] = ()


NONE_IS_GOOD = "and no revision is known to be good"
IN_PROGRESS = frozenset({RolloutPhase.PROGRESSING, RolloutPhase.PROMOTING, RolloutPhase.PAUSED})


def promotion_of(policy: RolloutPolicy, stable: str, *, is_return: bool) -> PromotionPolicy | None:
    """The steps to take; None = all traffic at once: nothing to compare with, or the way back."""
    return policy.promotion if stable and not is_return else None


def step_percent(promotion: PromotionPolicy | None, step: int) -> int:
    """The share of a step in percent; before the first one, 0."""
    if promotion is None:
        return 100
    return 0 if step < 0 else promotion.steps[min(step, len(promotion.steps) - 1)]


def replicas_for(desired: int, percent: int) -> int:
    """Replicas that carry this share of what `desired` ones carry."""
    return max(1, math.ceil(max(desired, 1) * percent / 100))


def next_rollout(policy: RolloutPolicy, before: RolloutStatus, facts: RolloutFacts) -> RolloutStep:
    """One look further."""
    if facts.traffic:
        return _by_hand(before, facts)
    if facts.target == before.stable:
        return _settled(before, facts)
    is_same = before.target == facts.target
    if before.phase is RolloutPhase.ROLLED_BACK and is_same and not facts.is_spec_changed:
        return RolloutStep(status=before)
    if before.phase not in IN_PROGRESS or not is_same:
        return _started(policy, before, facts)
    if before.started_at == 0.0:  # Held back before it began.
        return RolloutStep(status=before) if facts.is_paused else _started(policy, before, facts)
    return _continued(policy, before, facts)


def _by_hand(before: RolloutStatus, facts: RolloutFacts) -> RolloutStep:
    best = max(facts.traffic, key=lambda name: (facts.traffic[name], number_of(name)))
    shown = ", ".join(f"{name} {weight} %" for name, weight in facts.traffic.items())
    status = RolloutStatus(stable=best, target=best, message=f"the spec sets the traffic: {shown}")
    if before.message == status.message:
        return RolloutStep(status=before)
    return RolloutStep(status=status, notes=(Note(reason=EventReason.TRAFFIC_SET, message=shown),))


def _settled(before: RolloutStatus, facts: RolloutFacts) -> RolloutStep:
    status = RolloutStatus(stable=before.stable, target=before.stable)
    if before.phase is RolloutPhase.STABLE or before.target == before.stable:
        return RolloutStep(status=status)
    message = f"{before.stable} is wanted again: it takes back what {before.target} had"
    return RolloutStep(
        status=status, notes=(Note(reason=EventReason.ROLLOUT_COMPLETE, message=message, subject=before.stable),)
    )


def _started(policy: RolloutPolicy, before: RolloutStatus, facts: RolloutFacts) -> RolloutStep:
    promotion = promotion_of(policy, before.stable, is_return=facts.is_return)
    if facts.is_paused:
        status = RolloutStatus(
            phase=RolloutPhase.PAUSED,
            stable=before.stable,
            target=facts.target,
            message=f"{facts.target} is ready to roll out; the spec says paused",
        )
        return _noted(before, status, EventReason.ROLLOUT_PAUSED)
    way = f"from {before.stable} to {facts.target}" if before.stable else f"the first one, {facts.target}"
    how = f" in steps of {', '.join(map(str, promotion.steps))} %" if promotion else ""
    status = RolloutStatus(
        phase=RolloutPhase.PROMOTING if promotion else RolloutPhase.PROGRESSING,
        stable=before.stable,
        target=facts.target,
        started_at=facts.now,
        progressed_at=facts.now,
        message=f"{way}{how}",
    )
    return _noted(before, status, EventReason.ROLLOUT_STARTED)


def _continued(policy: RolloutPolicy, before: RolloutStatus, facts: RolloutFacts) -> RolloutStep:
    promotion = promotion_of(policy, before.stable, is_return=facts.is_return)
    failure = _failure(policy, before, facts)
    if failure:
        return _returned(before, facts, failure)
    if facts.is_paused:
        status = _with(before, phase=RolloutPhase.PAUSED, progressed_at=0.0, message="the spec says paused")
        return RolloutStep(status=before) if _was_paused(before) else _noted(before, status, EventReason.ROLLOUT_PAUSED)
    if _was_paused(before):
        phase = RolloutPhase.PROMOTING if promotion else RolloutPhase.PROGRESSING
        status = _with(before, phase=phase, progressed_at=facts.now, message=f"{facts.target} goes on")
        return _noted(before, status, EventReason.ROLLOUT_RESUMED)
    status = _with_progress(before, facts)
    if facts.ready < facts.needed:
        return _waiting(policy, status, facts)
    if promotion is None:
        return _completed(status, facts)
    return _measured(promotion, status, facts)


def _was_paused(status: RolloutStatus) -> bool:
    """By the spec: a pause for want of requests still measures."""
    return status.phase is RolloutPhase.PAUSED and status.progressed_at == 0.0


def _with_progress(status: RolloutStatus, facts: RolloutFacts) -> RolloutStatus:
    """More ready replicas are progress. Fewer than needed, after there were enough, begin the wait anew."""
    has_grown = facts.ready > facts.ready_before
    has_lost = facts.ready < facts.needed <= facts.ready_before
    return _with(status, progressed_at=facts.now) if has_grown or has_lost else status


def _waiting_seconds(status: RolloutStatus, facts: RolloutFacts) -> float:
    return facts.now - max(status.progressed_at, facts.watched_since)


def _failure(policy: RolloutPolicy, before: RolloutStatus, facts: RolloutFacts) -> str:
    """Why the last good revision must come back; "" = it need not."""
    if not before.stable:
        return ""
    if facts.verdict is not None and facts.verdict.kind is VerdictKind.ABORT:
        return facts.verdict.message
    if facts.is_looping and not facts.ready:
        return f"every replica of {facts.target} fails again and again"
    is_late = _waiting_seconds(_with_progress(before, facts), facts) >= policy.progress_deadline_seconds
    if is_late and facts.ready < facts.needed and not facts.is_paused and not _was_paused(before):
        return (
            f"{facts.ready} of {facts.needed} replicas of {facts.target} became ready, "
            f"and none more within {policy.progress_deadline_seconds:g} s"
        )
    return ""


def _returned(before: RolloutStatus, facts: RolloutFacts, failure: str) -> RolloutStep:
    message = f"{before.stable} is back: {failure}"
    status = _with(before, phase=RolloutPhase.ROLLED_BACK, message=message)
    return RolloutStep(status=status, notes=(warning(EventReason.ROLLED_BACK, message, before.target),))


def _waiting(policy: RolloutPolicy, status: RolloutStatus, facts: RolloutFacts) -> RolloutStep:
    """For replicas. Without a good revision there is nothing to go back to: it is said once, and tried on."""
    deadline = policy.progress_deadline_seconds
    if _waiting_seconds(status, facts) < deadline:
        return RolloutStep(status=status)
    message = (
        f"{facts.ready} of {facts.needed} replicas of {facts.target} became ready within {deadline:g} s, {NONE_IS_GOOD}"
    )
    if status.message == message:
        return RolloutStep(status=status)
    status = _with(status, message=message)
    note = warning(EventReason.PROGRESS_DEADLINE_EXCEEDED, message, facts.target)
    return RolloutStep(status=status, notes=(note,))


def _completed(status: RolloutStatus, facts: RolloutFacts) -> RolloutStep:
    done = RolloutStatus(stable=facts.target, target=facts.target)
    message = f"{facts.target} serves all traffic after {facts.now - status.started_at:.0f} s"
    return RolloutStep(
        status=done, notes=(Note(reason=EventReason.ROLLOUT_COMPLETE, message=message, subject=facts.target),)
    )


def _measured(promotion: PromotionPolicy, status: RolloutStatus, facts: RolloutFacts) -> RolloutStep:
    """The replicas of this step are ready: its time runs, and a verdict ends it."""
    last = len(promotion.steps) - 1
    step = min(status.step, last)
    percent = promotion.steps[step]
    if status.step_started_at == 0.0:
        message = f"step {step + 1} of {last + 1}: {facts.target} gets {percent} % and is measured"
        status = _with(status, step=step, step_started_at=facts.now, message=message)
        return _noted(status, status, EventReason.ROLLOUT_STEP, is_always=True)
    elapsed = facts.now - max(status.step_started_at, facts.watched_since)
    if elapsed < promotion.interval_seconds:
        return RolloutStep(status=status)
    if step == last:
        return _completed(status, facts)
    if facts.verdict is not None and facts.verdict.kind is VerdictKind.ADVANCE:
        message = f"step {step + 2} of {last + 1}: {facts.verdict.message}"
        moved = _with(
            status,
            phase=RolloutPhase.PROMOTING,
            step=step + 1,
            step_started_at=0.0,
            progressed_at=facts.now,
            message=message,
        )
        return RolloutStep(status=moved)
    if elapsed >= promotion.timeout_seconds and status.phase is RolloutPhase.PROMOTING:
        held = facts.verdict.message if facts.verdict else "nothing was measured"
        message = f"step {step + 1} of {last + 1} ({percent} %) found no verdict in {elapsed:.0f} s: {held}"
        return _noted(status, _with(status, phase=RolloutPhase.PAUSED, message=message), EventReason.ROLLOUT_PAUSED)
    return RolloutStep(status=status)


def _noted(
    before: RolloutStatus, status: RolloutStatus, reason: EventReason, *, is_always: bool = False
) -> RolloutStep:
    """With an event, if anything changed."""
    if before == status and not is_always:
        return RolloutStep(status=status)
    return RolloutStep(status=status, notes=(Note(reason=reason, message=status.message, subject=status.target),))


def _with(status: RolloutStatus, **changes: object) -> RolloutStatus:
    return msgspec.structs.replace(status, **changes)
