"""Who is kept out for failing, for how long, and how many at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.gateway.outlier import (
    DEFAULT_POLICY,
    EndpointHealth,
    HealthPhase,
    Pace,
    after_answer,
    after_choice,
    after_failure,
    after_no_verdict,
    after_slowness,
    after_success,
    is_slow,
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
        health = after_choice(health, P, now)
        assert health.phase is HealthPhase.PROBING
        assert not takes_requests(health, now + 59)  # one probe, no other
        health = after_failure(health, P, now, may_eject=False)
    assert times_out[1:] == pytest.approx([4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0])
    back = after_success(after_choice(health, P, health.until), P, health.until)
    assert (back.phase, back.ejections) == (HealthPhase.HEALTHY, 9)
    assert after_success(back, P, health.until + 59).ejections == 9
    assert after_success(back, P, health.until + 60).ejections == 0


def test_a_probe_without_an_end_of_its_own_leaves_the_probing_to_the_next() -> None:
    probing = after_choice(EndpointHealth(phase=HealthPhase.EJECTED, until=5.0), P, 5.0)
    assert takes_requests(after_no_verdict(probing, 6.0), 6.0)


def test_f08_a_probe_that_does_not_end_is_followed_by_another() -> None:
    probing = after_choice(EndpointHealth(phase=HealthPhase.EJECTED, until=5.0), P, 5.0)
    assert not takes_requests(probing, 5.0 + P.max_ejection_seconds - 0.1)
    assert takes_requests(probing, 5.0 + P.max_ejection_seconds)
    again = after_choice(probing, P, 5.0 + P.max_ejection_seconds)
    assert again.phase is HealthPhase.PROBING
    assert not takes_requests(again, 5.0 + P.max_ejection_seconds)


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
                    health = after_choice(health, P, now)
            case "well":
                health = after_success(health, P, now)
            case "fail":
                health = after_failure(health, P, now, may_eject=True)
            case "nothing":
                health = after_no_verdict(health, now)
        assert health.until <= now + P.max_ejection_seconds
        assert takes_requests(health, now + P.max_ejection_seconds)


@pytest.mark.parametrize(
    ("paces", "slow"),
    [
        ([0.02, 0.02, 0.4], [False, False, True]),
        ([0.02, 0.4], [False, True]),
        ([0.02, 0.03, 0.1], [False, False, False]),
        ([0.4, 0.4, 0.4], [False, False, False]),
        ([0.4], [False]),
        ([0.0, 0.0, 0.015], [False, False, False]),
    ],
)
def test_f08_twenty_times_slower_than_the_others_is_a_failure(paces, slow) -> None:
    known = []
    for seconds in paces:
        pace = Pace()
        for _ in range(P.min_paced):
            assert not is_slow(pace, known, P)
            pace = after_answer(pace, seconds)
        known.append(pace)
    assert [is_slow(pace, [peer for peer in known if peer is not pace], P) for pace in known] == slow


def test_f08_one_slow_answer_makes_no_slow_replica() -> None:
    pace = Pace()
    for seconds in [0.02] * 20 + [0.5]:
        pace = after_answer(pace, seconds)
    assert not is_slow(pace, [Pace(seconds=0.02, answers=20)], P)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_a_pace_lies_between_its_answers(answers) -> None:
    pace = Pace()
    for seconds in answers:
        pace = after_answer(pace, seconds)
    assert min(answers) - 1e-9 <= pace.seconds <= max(answers) + 1e-9


def test_f08_a_slow_replica_leaves_if_others_stay_and_only_from_health() -> None:
    assert after_slowness(EndpointHealth(), P, 1.0, may_eject=False).phase is HealthPhase.HEALTHY
    ejected = after_slowness(EndpointHealth(), P, 1.0, may_eject=True)
    assert (ejected.phase, ejected.until) == (HealthPhase.EJECTED, 1.0 + P.ejection_seconds)
    assert after_slowness(ejected, P, 2.0, may_eject=True) == ejected
