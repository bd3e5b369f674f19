"""What the loop remembers of a service between two looks and may forget: an immutable value.

Everything that must survive the control plane is in the store. After a restart this is empty, and every wait it
measured begins anew: replicas stay a little longer, a promotion measures its step again, the number of replicas holds.
"""

from __future__ import annotations

import msgspec

from argosy.control.promotion import Verdict
from argosy.control.scaling_history import ScalingHistory
from argosy.control.traffic import ServiceTotals
from argosy.core.scaling import ScalingDecision


class StepMarks(msgspec.Struct, frozen=True, kw_only=True):
    """The counts when a rollout to `target` began, and when its step did: what has been seen since is the evidence."""

    target: str
    step: int
    rollout: ServiceTotals
    step_begin: ServiceTotals


class ServiceMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Of one service. watched_since: when this control plane first saw it; unix seconds.

    history, decision: of the autoscaler. zero_since: since when a revision has had no traffic.
    marks, verdict: of the promotion under way.
    """

    watched_since: float
    history: ScalingHistory = ScalingHistory()
    decision: ScalingDecision | None = None
    zero_since: dict[str, float] = {}
    marks: StepMarks | None = None
    verdict: Verdict | None = None
