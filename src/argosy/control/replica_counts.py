"""How many replicas each revision runs next, on its way from what runs to what is wanted. Pure.

A rolling update over workloads: never more replicas than desired and `max_surge`, never fewer ready ones through us
than desired less `max_unavailable`. The lead takes over; the keep (the last good revision) gives way as the lead
becomes ready, and grows with the load meanwhile; all others only give way.

Source: Kubernetes' deployment controller (rolling.go): reconcileOldReplicaSets, cleanupUnhealthyReplicas,
scaleDownOldReplicaSetsForRollingUpdate; what it does with replica sets is done here with workloads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from argosy.control.running import ABSENT, Running


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """desired: replicas of the whole service. surge: allowed beyond; unavailable: allowed to be missing."""

    desired: int
    surge: int
    unavailable: int

    @property
    def least_ready(self) -> int:
        """What we never take away. With room for a surge, the last replica stays until another one is ready."""
        if self.surge > 0 and self.desired > 0:
            return max(1, self.desired - self.unavailable)
        return max(0, self.desired - self.unavailable)


class Goals(msgspec.Struct, frozen=True, kw_only=True):
    """Where the revisions are going. lead: grows to lead_goal. keep: the other one that may grow; "" = none.

    keep_floor: the least of it, while its answers are compared. serving: revisions with a share of the traffic, whose
    last replica stays. frozen: revisions whose replicas must not be taken now, because a gateway may not yet know
    that they have no traffic.
    """

    lead: str
    lead_goal: int
    keep: str = ""
    keep_floor: int = 0
    serving: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset()


def rolling_counts(goals: Goals, running: Mapping[str, Running], limits: Limits) -> dict[str, int]:
    """Replicas per revision, for all in `running` and the lead. Those not named in `goals` go to none."""
    lead_ready = min(running.get(goals.lead, ABSENT).ready, goals.lead_goal)
    is_bound = limits.least_ready > 0
    wanted = {name: int(is_bound and name in goals.serving) for name in running}
    if goals.keep:
        floor = max(goals.keep_floor, wanted.get(goals.keep, 0))
        wanted[goals.keep] = max(floor, limits.least_ready - lead_ready)
    wanted[goals.lead] = goals.lead_goal
    growing = [goals.keep, goals.lead] if goals.keep else [goals.lead]
    return stepped_counts(wanted, running, limits, growing=growing, frozen=goals.frozen)


def stepped_counts(
    wanted: Mapping[str, int],
    running: Mapping[str, Running],
    limits: Limits,
    *,
    growing: Sequence[str],
    frozen: frozenset[str] = frozenset(),
) -> dict[str, int]:
    """The next step from what runs towards `wanted`. growing: who may grow, the first one first."""
    counts = {name: running.get(name, ABSENT).asked for name in wanted}
    excess = {name: counts[name] - wanted[name] for name in wanted if counts[name] > wanted[name]}
    shrinking = sorted((name for name in excess if name not in frozen), key=lambda name: (name in growing, name))
    unready_elsewhere = sum(running.get(name, ABSENT).unready for name in wanted if name not in excess)
    removable = max(0, sum(counts.values()) - limits.least_ready - unready_elsewhere)
    for name in shrinking:  # What does not answer is the first to go.
        cut = min(excess[name], running[name].unready, removable)
        counts[name] -= cut
        removable -= cut
    ready = sum(min(running.get(name, ABSENT).ready, counts[name]) for name in wanted)
    removable = min(removable, max(0, ready - limits.least_ready))
    for name in shrinking:
        cut = min(counts[name] - wanted[name], removable)
        counts[name] -= cut
        removable -= cut
    room = max(0, limits.desired + limits.surge - sum(counts.values()))
    for name in growing:
        grown = min(max(0, wanted[name] - counts[name]), room)
        counts[name] += grown
        room -= grown
    return counts


def split_by_weight(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """`total` replicas shared out by weight, at least one each: the largest remainders get what is left over.

    Source: Hamilton's method of apportionment.
    """
    if total == 0 or not weights:
        return dict.fromkeys(weights, 0)
    whole = sum(weights.values()) or 1
    exact = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: max(1, math.floor(share)) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: max(0, total - sum(counts.values()))]:
        counts[name] += 1
    while sum(counts.values()) > max(total, len(counts)):
        counts[max(counts, key=lambda name: (counts[name], name))] -= 1
    return counts
