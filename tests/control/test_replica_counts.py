"""How many replicas each revision runs next: the table of a rolling update, and what no step may do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.control.replica_counts import Goals, Limits, rolling_counts, split_by_weight, stepped_counts
from argosy.control.running import Running


def running(asked: int, ready: int) -> Running:
    return Running(asked=asked, ready=ready)


@pytest.mark.parametrize(
    ("old", "new", "surge", "unavailable", "expected"),
    [
        ((4, 4), (0, 0), 1, 0, (4, 1)),  # one more than desired
        ((4, 4), (1, 0), 1, 0, (4, 1)),  # nothing goes before it is ready
        ((4, 4), (1, 1), 1, 0, (3, 2)),
        ((1, 1), (4, 4), 1, 0, (0, 4)),
        ((4, 4), (0, 0), 0, 1, (3, 1)),  # room is made first
        ((3, 3), (1, 0), 0, 1, (3, 1)),
        ((4, 4), (0, 0), 2, 1, (3, 3)),
        ((4, 2), (1, 1), 1, 0, (3, 2)),  # of the old ones one that does not answer goes
        ((4, 0), (1, 0), 1, 0, (4, 1)),  # all are starting: the good revision is not given up
    ],
)
def test_a_rolling_update_of_four(
    old: tuple[int, int], new: tuple[int, int], surge: int, unavailable: int, expected: tuple[int, int]
) -> None:
    counts = rolling_counts(
        Goals(lead="v2", lead_goal=4, keep="v1"),
        {"v1": running(*old), "v2": running(*new)},
        Limits(desired=4, surge=surge, unavailable=unavailable),
    )
    assert (counts["v1"], counts["v2"]) == expected


def test_the_last_replica_stays_where_a_surge_is_allowed() -> None:
    limits = Limits(desired=1, surge=1, unavailable=1)
    counts = rolling_counts(Goals(lead="v2", lead_goal=1, keep="v1"), {"v1": running(1, 1)}, limits)
    assert counts == {"v1": 1, "v2": 1}


def test_more_load_grows_the_good_revision_while_the_new_one_starts() -> None:
    limits = Limits(desired=6, surge=1, unavailable=0)
    counts = rolling_counts(
        Goals(lead="v2", lead_goal=6, keep="v1"), {"v1": running(4, 4), "v2": running(1, 0)}, limits
    )
    assert counts == {"v1": 6, "v2": 1}


def test_less_load_shrinks_both() -> None:
    limits = Limits(desired=1, surge=1, unavailable=0)
    counts = rolling_counts(
        Goals(lead="v2", lead_goal=1, keep="v1"), {"v1": running(3, 3), "v2": running(2, 0)}, limits
    )
    assert counts == {"v1": 1, "v2": 1}


def test_a_frozen_revision_is_left_alone() -> None:
    limits = Limits(desired=2, surge=2, unavailable=0)
    goals = Goals(lead="v2", lead_goal=2, frozen=frozenset({"v1"}))
    assert rolling_counts(goals, {"v1": running(2, 2), "v2": running(2, 2)}, limits)["v1"] == 2


runs = st.builds(
    lambda asked, ready: Running(asked=asked, ready=min(asked, ready)), st.integers(0, 6), st.integers(0, 6)
)


@given(
    st.dictionaries(st.sampled_from(["v1", "v2", "v3", "v4"]), runs, min_size=1),
    st.dictionaries(st.sampled_from(["v1", "v2", "v3", "v4"]), st.integers(0, 6), min_size=1),
    st.integers(0, 6),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_no_step_exceeds_what_is_allowed(
    now: dict[str, Running], wanted: dict[str, int], desired: int, surge: int, unavailable: int
) -> None:
    limits = Limits(desired=desired, surge=surge, unavailable=unavailable)
    wanted = {**dict.fromkeys(now, 0), **wanted}
    counts = stepped_counts(wanted, now, limits, growing=sorted(wanted))
    before = sum(each.asked for each in now.values())
    assert sum(counts.values()) <= max(before, desired + surge)
    ready = sum(each.ready for each in now.values())
    left = sum(min(each.ready, counts[name]) for name, each in now.items())
    assert left >= min(ready, max(0, desired - unavailable))
    for name, count in counts.items():
        asked = now[name].asked if name in now else 0
        assert min(asked, wanted[name]) <= count <= max(asked, wanted[name])


@given(st.integers(0, 40), st.dictionaries(st.sampled_from("abcde"), st.integers(0, 100), min_size=1))
def test_a_split_leaves_nobody_without_and_adds_up(total: int, weights: dict[str, int]) -> None:
    counts = split_by_weight(total, weights)
    if total == 0:
        assert set(counts.values()) == {0}
    else:
        assert min(counts.values()) >= 1
        if sum(weights.values()):
            assert sum(counts.values()) == max(total, len(weights))


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (4, {"v1": 75, "v2": 25}, {"v1": 3, "v2": 1}),
        (1, {"v1": 90, "v2": 10}, {"v1": 1, "v2": 1}),
        (4, {"v1": 100, "v2": 0}, {"v1": 3, "v2": 1}),
        (10, {"v1": 1, "v2": 99}, {"v1": 1, "v2": 9}),
        (3, {"v1": 50, "v2": 50}, {"v1": 2, "v2": 1}),
    ],
)
def test_a_split_by_weight(total: int, weights: dict[str, int], expected: dict[str, int]) -> None:
    assert split_by_weight(total, weights) == expected
