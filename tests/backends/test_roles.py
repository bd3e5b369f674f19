"""Roles: tables of values for the cases users meet, and laws for all others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.backends.roles import Member, assign_roles, is_same_command
from argosy.core.workload import Workload


def member(text: str, order: int) -> Member:
    """`a+` is ready, `a` is not; `*` marks a spare, `~` an earlier command."""
    return Member(name=text[0], order=order, is_ready="+" in text, is_spare="*" in text, is_current="~" not in text)


@pytest.mark.parametrize(
    ("members", "replicas", "spares", "active", "spare", "drain", "missing"),
    [
        ("", 2, 1, "", "", "", 3),
        ("a+ b+", 1, 0, "a", "", "b", 0),  # the youngest goes
        ("a b+", 1, 0, "b", "", "a", 0),  # what is not ready goes first
        ("a+ b+*", 2, 1, "ab", "", "", 1),  # a spare becomes a replica at once, a new one starts behind it
        ("a b+*", 1, 1, "b", "a", "", 0),  # a spare stands in for a crashed replica
        ("a+ b+*", 1, 1, "a", "b", "", 0),  # nothing moves without need
        ("a+* b+", 1, 1, "b", "a", "", 0),
        ("a+ b+ c*", 1, 1, "a", "b", "c", 0),  # a ready replica that is too much serves as the spare
        ("a+~ b", 1, 0, "ba", "", "", 0),  # an earlier command serves on until the new one is ready
        ("a+~ b+", 1, 0, "b", "", "a", 0),
        ("a~ b", 1, 0, "b", "", "a", 0),
        ("a+ b+", 0, 0, "", "", "ab", 0),
    ],
)
def test_table(members: str, replicas: int, spares: int, active: str, spare: str, drain: str, missing: int) -> None:
    roles = assign_roles([member(each, order) for order, each in enumerate(members.split())], replicas, spares)
    assert ("".join(roles.active), "".join(roles.spare), "".join(roles.drain)) == (active, spare, drain)
    assert roles.missing == missing


MEMBERS = st.lists(
    st.builds(
        Member,
        name=st.uuids().map(str),
        order=st.integers(0, 99),
        is_ready=st.booleans(),
        is_spare=st.booleans(),
        is_current=st.booleans(),
    ),
    max_size=12,
)


@given(MEMBERS, st.integers(0, 6), st.integers(0, 3))
def test_everyone_has_one_role_and_no_ready_replica_goes_while_one_is_lacking(
    members: list[Member], replicas: int, spares: int
) -> None:
    roles = assign_roles(members, replicas, spares)
    named = [*roles.active, *roles.spare, *roles.drain]
    assert sorted(named) == sorted(each.name for each in members)
    by_name = {each.name: each for each in members}
    current = [name for name in (*roles.active, *roles.spare) if by_name[name].is_current]
    assert len(current) + roles.missing >= replicas + spares
    assert len(current) <= replicas + spares
    ready_active = sum(by_name[name].is_ready for name in roles.active)
    ready_elsewhere = [name for name in (*roles.spare, *roles.drain) if by_name[name].is_ready]
    assert ready_active >= min(replicas, ready_active + len(ready_elsewhere))


@given(MEMBERS, st.integers(0, 6), st.integers(0, 3))
def test_assigning_again_changes_nothing(members: list[Member], replicas: int, spares: int) -> None:
    first = assign_roles(members, replicas, spares)
    kept = [
        Member(
            name=each.name,
            order=each.order,
            is_ready=each.is_ready,
            is_spare=each.name in first.spare,
            is_current=each.is_current,
        )
        for each in members
        if each.name not in first.drain
    ]
    again = assign_roles(kept, replicas, spares)
    assert (set(again.active), set(again.spare), again.drain) == (set(first.active), set(first.spare), ())


def test_labels_and_counts_do_not_start_a_process_anew() -> None:
    one = Workload(name="w", argv=("a",), labels={"x": "1"}, replicas=1)
    assert is_same_command(one, Workload(name="w", argv=("a",), replicas=5, warm_spares=1))
    assert not is_same_command(one, Workload(name="w", argv=("b",)))
