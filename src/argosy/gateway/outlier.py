"""When a replica that fails is kept out of rotation, and how it comes back. A pure state machine per replica.

                failures in a row, or many of a window's requests, or far slower than its peers
    HEALTHY ────────────────────────────────────────────────────▶ EJECTED, for a time that doubles each time
       ▲                                                             │ the time is over, and a request comes
       │ it went well                                                ▼
       └───────────────────────────────────────────────────────── PROBING: that one request, one a minute
                                                                     │ it failed: EJECTED again
                                                                     └ it had no end of its own: the next one probes

Slow is told by the pace of tokens, which depends little on the prompt: a replica whose pace is `max_pace_ratio` times
the median of the others', over `min_paced` answers each, is as bad as one that fails (a throttled machine, a debugger).

At most `max_ejected_ratio` of a revision's replicas are out at once, rounded down: if most fail, the fault is likely
elsewhere, and the rest would drown. So the only replica of a revision is never out.

Source: outlier detection in Envoy; half-open probes as in Nygard's circuit breaker.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from statistics import median

import msgspec


class OutlierPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as failing. max_failure_ratio: of at least min_requests in window_seconds.

    max_pace_ratio: seconds per token, against the median of the other replicas; judged after min_paced answers.
    ejection_seconds: the first time out; it doubles up to max_ejection_seconds, and as long in health forgives it.
    """

    consecutive_failures: int = 3
    min_requests: int = 10
    max_failure_ratio: float = 0.4
    window_seconds: float = 10.0
    max_pace_ratio: float = 8.0
    min_paced: int = 10
    ejection_seconds: float = 2.0
    max_ejection_seconds: float = 60.0
    max_ejected_ratio: float = 0.5


DEFAULT_POLICY = OutlierPolicy()
# Of a new answer in the moving average: ten answers make most of it.
_PACE_SHARE = 0.2
# Nobody feels a difference between paces below this; tests and echo engines do not wait at all.
_PACE_FLOOR_SECONDS = 0.002


class HealthPhase(StrEnum):
    """Where a replica is."""

    HEALTHY = "healthy"
    EJECTED = "ejected"
    PROBING = "probing"


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one replica. Times are monotonic seconds.

    requests, failures: since window_began. ejections: in a row. until: end of the ejection, or of the wait for its
    probe. healthy_since: of the present health.
    """

    phase: HealthPhase = HealthPhase.HEALTHY
    in_a_row: int = 0
    requests: int = 0
    failures: int = 0
    window_began: float = 0.0
    ejections: int = 0
    until: float = 0.0
    healthy_since: float = 0.0


def takes_requests(health: EndpointHealth, now: float) -> bool:
    """Whether a request may go there: in health, or as the probe after an ejection.

    A probe that does not end, as a long answer does not for minutes, is followed by another.
    """
    return health.phase is HealthPhase.HEALTHY or now >= health.until


def after_choice(health: EndpointHealth, policy: OutlierPolicy, now: float) -> EndpointHealth:
    """A request goes there: after an ejection it is the probe."""
    if health.phase is HealthPhase.HEALTHY or now < health.until:
        return health
    return msgspec.structs.replace(health, phase=HealthPhase.PROBING, until=now + policy.max_ejection_seconds)


def after_no_verdict(health: EndpointHealth, now: float) -> EndpointHealth:
    """A request ended by the client's will, so it says nothing: if it was the probe, the next one is."""
    if health.phase is HealthPhase.PROBING:
        return msgspec.structs.replace(health, phase=HealthPhase.EJECTED, until=now)
    return health


def after_success(health: EndpointHealth, policy: OutlierPolicy, now: float) -> EndpointHealth:
    """A request went well. One that was under way before an ejection does not end it."""
    if health.phase is HealthPhase.EJECTED:
        return health
    if health.phase is HealthPhase.PROBING:
        return EndpointHealth(ejections=health.ejections, window_began=now, healthy_since=now)
    is_forgiven = health.ejections and now - health.healthy_since >= policy.max_ejection_seconds
    counted = _counted(health, policy, now, failures=0)
    return msgspec.structs.replace(counted, in_a_row=0, ejections=0 if is_forgiven else health.ejections)


def after_failure(health: EndpointHealth, policy: OutlierPolicy, now: float, *, may_eject: bool) -> EndpointHealth:
    """A request failed. may_eject: whether the revision can do without one replica more."""
    if health.phase is HealthPhase.EJECTED:
        return health
    if health.phase is HealthPhase.PROBING:
        return _ejected(health, policy, now)
    counted = _counted(health, policy, now, failures=1)
    counted = msgspec.structs.replace(counted, in_a_row=health.in_a_row + 1)
    is_failing = counted.in_a_row >= policy.consecutive_failures or (
        counted.requests >= policy.min_requests and counted.failures >= policy.max_failure_ratio * counted.requests
    )
    return _ejected(counted, policy, now) if is_failing and may_eject else counted


def after_slowness(health: EndpointHealth, policy: OutlierPolicy, now: float, *, may_eject: bool) -> EndpointHealth:
    """It answers, but far too slowly."""
    return _ejected(health, policy, now) if may_eject and health.phase is HealthPhase.HEALTHY else health


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a replica's tokens follow each other: a moving average. answers: how many it is made of."""

    seconds: float = 0.0
    answers: int = 0


def after_answer(pace: Pace, seconds: float) -> Pace:
    """The pace with one more answer. seconds: per token of it."""
    share = max(_PACE_SHARE, 1 / (pace.answers + 1))
    return Pace(seconds=pace.seconds + share * (seconds - pace.seconds), answers=pace.answers + 1)


def is_slow(pace: Pace, peers: Sequence[Pace], policy: OutlierPolicy) -> bool:
    """Whether a replica lags far behind the others of its revision."""
    known = [peer.seconds for peer in peers if peer.answers >= policy.min_paced]
    if pace.answers < policy.min_paced or not known:
        return False
    return pace.seconds > policy.max_pace_ratio * max(median(known), _PACE_FLOOR_SECONDS)


def may_eject_one_more(num_endpoints: int, num_ejected: int, policy: OutlierPolicy) -> bool:
    """Whether the share that may be out leaves room for one more."""
    return num_ejected + 1 <= int(policy.max_ejected_ratio * num_endpoints)


def _counted(health: EndpointHealth, policy: OutlierPolicy, now: float, *, failures: int) -> EndpointHealth:
    if now - health.window_began >= policy.window_seconds:
        return msgspec.structs.replace(health, requests=1, failures=failures, window_began=now)
    return msgspec.structs.replace(health, requests=health.requests + 1, failures=health.failures + failures)


def _ejected(health: EndpointHealth, policy: OutlierPolicy, now: float) -> EndpointHealth:
    seconds = min(policy.ejection_seconds * 2.0 ** min(health.ejections, 32), policy.max_ejection_seconds)
    return EndpointHealth(
        phase=HealthPhase.EJECTED, ejections=health.ejections + 1, until=now + seconds, window_began=now
    )
