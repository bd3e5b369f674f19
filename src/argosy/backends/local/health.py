"""What probe answers mean for a replica: still starting, ready, unready, hung, or too slow to start. Pure.

A replica that is ready answers, so liveness is asked only while readiness is refused. Silence is counted in seconds
since the last answer and not in failed probes: a probe that waits would otherwise hide that others were due (F-04).
Time in which we ourselves were held up does not count, so a stalled control plane does not end what is well.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from argosy.core.workload import Probe, Workload

# How often a replica that is starting is asked. A start is short and somebody waits for it.
STARTING_PERIOD_SECONDS = 0.1
# A round of questions may last so much longer than it should before we blame ourselves.
HELD_UP_SECONDS = 0.5


class Verdict(StrEnum):
    """What a replica is, after an answer or the lack of one. HUNG, SICK and LATE end it."""

    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    HUNG = "hung"
    SICK = "sick"
    LATE = "late"


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """One round of questions. None = not asked, or no answer; else whether it was 200.

    allowed_seconds: how long the round could last.
    """

    ready: bool | None = None
    live: bool | None = None
    allowed_seconds: float = 0.0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered between rounds. Times are monotonic seconds.

    silent_seconds: time without an answer of any kind. looked_at: the end of the last round, or the start.
    has_been_ready: the start is over.
    """

    started_at: float
    looked_at: float
    silent_seconds: float = 0.0
    has_been_ready: bool = False
    is_ready: bool = False
    ready_failures: int = 0
    live_failures: int = 0


def fresh(now: float, age_seconds: float = 0.0) -> Health:
    """Of a process that starts now, or began so long ago and is seen for the first time."""
    return Health(started_at=now - age_seconds, looked_at=now)


def after(health: Health, answers: Answers, workload: Workload, now: float) -> Health:
    """The memory after one round."""
    was_answered = answers.ready is not None or answers.live is not None
    gap = now - health.looked_at
    # A round that took longer than it could was held up on our side: it says nothing about the replica.
    was_held_up = gap > pause_seconds(health, workload) + answers.allowed_seconds + HELD_UP_SECONDS
    if was_held_up and not was_answered:
        return msgspec.structs.replace(health, looked_at=now)
    failures = 0 if answers.ready else health.ready_failures + 1
    return Health(
        started_at=health.started_at,
        looked_at=now,
        silent_seconds=0.0 if was_answered else health.silent_seconds + gap,
        has_been_ready=health.has_been_ready or bool(answers.ready),
        is_ready=bool(answers.ready) or (health.is_ready and failures < workload.readiness.failure_threshold),
        ready_failures=failures,
        live_failures=health.live_failures + 1 if answers.live is False else 0,
    )


def verdict(health: Health, workload: Workload, now: float) -> Verdict:
    """What the replica is now."""
    if not health.has_been_ready:
        is_late = now - health.started_at >= workload.start_timeout_seconds
        return Verdict.LATE if is_late else Verdict.STARTING
    # A timer may fire a hair early.
    if health.silent_seconds >= silence_seconds(workload.liveness) - 0.01:
        return Verdict.HUNG
    if health.live_failures >= workload.liveness.failure_threshold:
        return Verdict.SICK
    return Verdict.READY if health.is_ready else Verdict.UNREADY


def silence_seconds(liveness: Probe) -> float:
    """How long a replica may give no answer of any kind: 3 s with the defaults."""
    return max(liveness.timeout_seconds, liveness.period_seconds * liveness.failure_threshold)


def probe_seconds(health: Health, probe: Probe, workload: Workload, now: float) -> float:
    """How long the next answer is waited for: not beyond the moment at which silence means a hang."""
    if not health.has_been_ready:
        return probe.timeout_seconds
    left = silence_seconds(workload.liveness) - health.silent_seconds - (now - health.looked_at)
    return max(0.001, min(probe.timeout_seconds, left))


def pause_seconds(health: Health, workload: Workload) -> float:
    """Between two rounds."""
    period = workload.readiness.period_seconds
    return period if health.is_ready else min(period, STARTING_PERIOD_SECONDS)
