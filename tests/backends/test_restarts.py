"""Waits between restarts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.backends.restarts import DEFAULT_RESTARTS, crashes_after, is_crash_loop, restart_delay_seconds


@pytest.mark.parametrize(("crashes", "seconds"), [(1, 0.1), (2, 1.0), (3, 2.0), (4, 4.0), (9, 60.0), (5000, 60.0)])
def test_the_wait_doubles_up_to_a_cap(crashes: int, seconds: float) -> None:
    assert restart_delay_seconds(DEFAULT_RESTARTS, crashes, chance=0.0) == seconds


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_chance_only_shortens_a_wait_and_never_below_the_first(crashes: int, chance: float) -> None:
    plain = restart_delay_seconds(DEFAULT_RESTARTS, crashes, chance=0.0)
    assert DEFAULT_RESTARTS.first_seconds <= restart_delay_seconds(DEFAULT_RESTARTS, crashes, chance) <= plain


def test_a_calm_stretch_forgives_and_three_in_a_row_are_a_loop() -> None:
    assert crashes_after(DEFAULT_RESTARTS, 7, ready_seconds=60.0) == 1
    assert crashes_after(DEFAULT_RESTARTS, 2, ready_seconds=59.0) == 3
    assert [is_crash_loop(DEFAULT_RESTARTS, n) for n in (1, 2, 3)] == [False, False, True]
