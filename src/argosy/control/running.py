"""What runs of each revision, read once from the backend's statuses into the numbers that decisions need. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from argosy.core.workload import REVISION_LABEL, ReplicaPhase, ReplicaStatus, WorkloadStatus

# The reason a backend gives a replica that failed several times in a row (docs/events.md).
CRASH_LOOP = "CrashLoop"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """One revision as the backend sees it. asked: replicas it was told to run, spares left out.

    ready: those that take requests. starting: on their way, no failure yet. failing: crashed, or not answering.
    looping: failing again and again. pending: no room for them. spares: warm ones that are ready.
    """

    asked: int = 0
    ready: int = 0
    starting: int = 0
    pending: int = 0
    failing: int = 0
    looping: int = 0
    spares: int = 0
    is_draining: bool = False
    message: str = ""

    @property
    def unready(self) -> int:
        """Asked for, and not taking requests."""
        return max(0, self.asked - self.ready)


ABSENT = Running()


def running_of(statuses: Iterable[WorkloadStatus]) -> dict[str, Running]:
    """By revision (`v1`)."""
    return {each.labels[REVISION_LABEL]: _running(each) for each in statuses if REVISION_LABEL in each.labels}


def _running(status: WorkloadStatus) -> Running:
    ready = starting = pending = failing = looping = spares = draining = 0
    for replica in status.replicas:
        if replica.phase is ReplicaPhase.DRAINING:
            draining += 1
        elif replica.is_spare:
            spares += replica.phase is ReplicaPhase.READY
        elif replica.phase is ReplicaPhase.READY:
            ready += 1
        elif replica.phase is ReplicaPhase.PENDING:
            pending += 1
        elif is_failing(replica):
            failing += 1
            looping += replica.reason == CRASH_LOOP
        else:
            starting += 1
    return Running(
        asked=status.desired_replicas,
        ready=min(ready, status.desired_replicas),
        starting=starting,
        pending=pending,
        failing=failing,
        looping=looping,
        spares=spares,
        is_draining=draining > 0,
        message=_message(status),
    )


def is_failing(replica: ReplicaStatus) -> bool:
    """Whether a replica is down for another cause than being new."""
    has_failed = replica.restarts > 0 and replica.phase is ReplicaPhase.STARTING
    return replica.phase in (ReplicaPhase.BACKOFF, ReplicaPhase.UNREADY) or has_failed


def _message(status: WorkloadStatus) -> str:
    """Why replicas are missing: the backend's word, else that of the first failing replica that says why.

    It names how often the replica has failed, so it is another one with each failure and the same until then.
    """
    if status.message:
        return status.message
    for replica in status.replicas:
        trouble = replica.message or replica.reason
        if trouble and not replica.is_spare and is_failing(replica):
            again = f" (failure {replica.restarts})" if replica.restarts > 1 else ""
            return f"{replica.name}{again}: {trouble}"
    return ""


def total_ready(running: Mapping[str, Running]) -> int:
    """Replicas of all revisions that take requests."""
    return sum(each.ready for each in running.values())
