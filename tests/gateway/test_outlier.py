"""Who is kept out for failing, for how long, and how many at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.gateway.outlier import (
    DEFAULT_POLICY,
    EndpointHealth,
    HealthPhase,
    after_choice,
    after_failure,
    after_no_verdict,
    after_success,
    may_eject_one_more,
    takes_requests,
)

P = DEFAULT_POLICY


def played(outcomes: str, *, start: EndpointHealth | None = None, step_seconds: float = 0.1) -> EndpointHealth:
    """`.` went well, `x` failed; one after the other."""
    health, now = start or EndpointHealth(), 0.0
    for outcome in outcomes:
        now += step_seconds
        failed = outcome == "x"
        health = after_failure(health, P, now, may_eject=True) if failed else after_success(health, P, now)
    return health


@pytest.mark.parametrize(
    ("outcomes", "phase"),
    [
        ("xx", HealthPhase.HEALTHY),
        ("xxx", HealthPhase.EJECTED),
        ("xx.xx.", HealthPhase.HEALTHY),
        ("x.x.x.x.x", HealthPhase.HEALTHY),
        ("x.x.x.x.x.x", HealthPhase.EJECTED),
        ("..........x..x..x", HealthPhase.HEALTHY),
    ],
)
def test_f08_failures_in_a_row_or_most_of_a_window(outcomes, phase) -> None:
    assert played(outcomes).phase is phase


def test_f08_half_errors_seldom_are_counted_within_a_window_only() -> None:
    assert played("x.x." * 10, step_seconds=3.0).phase is HealthPhase.HEALTHY


def test_f08_time_out_doubles_with_each_failed_probe_and_is_forgiven() -> None:
    health, now, times_out = played("xxx"), 1.0, []
    for _ in range(8):
        assert not takes_requests(health, health.until - 0.01)
        times_out.append(health.until - now)
        now = health.until
        assert takes_requests(health, now)
        health = after_choice(health, now)
        assert health.phase is HealthPhase.PROBING
        assert not takes_requests(health, now + 1000)  # one probe, no other
        health = after_failure(health, P, now, may_eject=False)
    assert times_out[1:] == pytest.approx([4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0])
    back = after_success(after_choice(health, health.until), P, health.until)
    assert (back.phase, back.ejections) == (HealthPhase.HEALTHY, 9)
    assert after_success(back, P, health.until + 59).ejections == 9
    assert after_success(back, P, health.until + 60).ejections == 0


def test_a_probe_without_an_end_of_its_own_leaves_the_probing_to_the_next() -> None:
    probing = after_choice(EndpointHealth(phase=HealthPhase.EJECTED, until=5.0), 5.0)
    assert takes_requests(after_no_verdict(probing, 6.0), 6.0)


def test_what_was_under_way_before_an_ejection_changes_nothing() -> None:
    ejected = played("xxx")
    assert after_success(ejected, P, 1.0) == ejected
    assert after_failure(ejected, P, 1.0, may_eject=True) == ejected


@pytest.mark.parametrize(("endpoints", "may"), [(1, 0), (2, 1), (3, 1), (4, 2), (7, 3)])
def test_at_most_half_are_out(endpoints, may) -> None:
    out = 0
    while may_eject_one_more(endpoints, out, P):
        out += 1
    assert out == may


@given(st.lists(st.tuples(st.sampled_from(["choose", "well", "fail", "nothing"]), st.floats(0, 100)), max_size=60))
def test_f08_an_ejected_replica_always_gets_another_chance(steps) -> None:
    health, now = EndpointHealth(), 0.0
    for what, seconds in steps:
        now += seconds
        match what:
            case "choose":
                if takes_requests(health, now):
                    health = after_choice(health, now)
            case "well":
                health = after_success(health, P, now)
            case "fail":
                health = after_failure(health, P, now, may_eject=True)
            case "nothing":
                health = after_no_verdict(health, now)
        assert health.until <= now + P.max_ejection_seconds
        if health.phase is HealthPhase.PROBING:
            assert takes_requests(after_success(health, P, now), now)
        else:
            assert takes_requests(health, now + P.max_ejection_seconds)
