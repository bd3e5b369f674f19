"""When a replica that fails is kept out of rotation, and how it comes back. A pure state machine per replica.

                failures in a row, or most of a window's requests
    HEALTHY ────────────────────────────────────────────────────▶ EJECTED, for a time that doubles each time
       ▲                                                             │ the time is over, and a request comes
       │ it went well                                                ▼
       └───────────────────────────────────────────────────────── PROBING: that one request, no other
                                                                     │ it failed: EJECTED again
                                                                     └ it had no end of its own: the next one probes

At most `max_ejected_ratio` of a revision's replicas are out at once, rounded down: if most fail, the fault is likely
elsewhere, and the rest would drown. So the only replica of a revision is never out.

Source: outlier detection in Envoy; half-open probes as in Nygard's circuit breaker.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class OutlierPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as failing. max_failure_ratio: of at least min_requests in window_seconds.

    ejection_seconds: the first time out; it doubles up to max_ejection_seconds, and as long in health forgives it.
    """

    consecutive_failures: int = 3
    min_requests: int = 10
    max_failure_ratio: float = 0.4
    window_seconds: float = 10.0
    ejection_seconds: float = 2.0
    max_ejection_seconds: float = 60.0
    max_ejected_ratio: float = 0.5


DEFAULT_POLICY = OutlierPolicy()


class HealthPhase(StrEnum):
    """Where a replica is."""

    HEALTHY = "healthy"
    EJECTED = "ejected"
    PROBING = "probing"


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one replica. Times are monotonic seconds.

    requests, failures: since window_began. ejections: in a row. until: end of the ejection. healthy_since: of the
    present health.
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
    """Whether a request may go there: in health, or as the probe after an ejection."""
    if health.phase is HealthPhase.EJECTED:
        return now >= health.until
    return health.phase is HealthPhase.HEALTHY


def after_choice(health: EndpointHealth, now: float) -> EndpointHealth:
    """A request goes there: after an ejection it is the probe."""
    if health.phase is HealthPhase.EJECTED and now >= health.until:
        return msgspec.structs.replace(health, phase=HealthPhase.PROBING)
    return health


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
