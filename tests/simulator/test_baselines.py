from __future__ import annotations

import pytest

from argosy.simulator.baselines import (
    HpaHistory,
    HpaSettings,
    KpaHistory,
    KpaSettings,
    hpa_replicas,
    hpa_total,
    hpa_utilisation,
    kpa_replicas,
)


@pytest.mark.parametrize(
    ("usage", "ready", "unready", "wanted"),
    [
        (0.8, 4, 0, 4),
        (0.87, 4, 0, 4),  # within the tolerance of 10 %
        (1.0, 4, 0, 5),
        (0.4, 4, 0, 2),
        (1.0, 4, 4, 8),  # those that start count as 0: 4 of 8 at 100 % is below the target, so nothing happens
        (0.0, 0, 3, 3),
    ],
)
def test_hpa_on_utilisation(usage: float, ready: int, unready: int, wanted: int) -> None:
    assert hpa_utilisation(usage, 0.8, ready=ready, unready=unready, tolerance=0.1) == wanted


@pytest.mark.parametrize(("total", "current", "wanted"), [(30.0, 3, 6), (16.0, 3, 3), (0.0, 3, 0), (5.1, 1, 1)])
def test_hpa_on_a_total(total: float, current: int, wanted: int) -> None:
    assert hpa_total(total, 5.0, current=current, tolerance=0.1) == wanted


def hpa(recommended: list[int], settings: HpaSettings, begin: int) -> list[int]:
    history, current, found = HpaHistory(), begin, []
    for tick, wish in enumerate(recommended):
        current, history = hpa_replicas(settings, wish, current, history, tick * 15.0)
        found.append(current)
    return found


def test_hpa_falls_to_the_highest_recommendation_of_its_window() -> None:
    settings = HpaSettings(down_stabilization_seconds=30.0)
    assert hpa([8, 2, 2, 2, 2], settings, 8) == [8, 8, 8, 2, 2]


def test_hpa_may_double_or_add_four_in_fifteen_seconds() -> None:
    assert hpa([40, 40, 40, 40], HpaSettings(), 1) == [5, 10, 20, 40]
    assert hpa([40], HpaSettings(max_replicas=3), 1) == [3]


def test_kpa_follows_the_stable_window_and_falls_by_half_at_most() -> None:
    assert kpa_replicas(KpaSettings(), 140.0, 140.0, 2, KpaHistory(), 0.0)[0] == 2
    assert kpa_replicas(KpaSettings(), 0.0, 0.0, 8, KpaHistory(), 0.0)[0] == 4


def test_kpa_panics_and_does_not_fall_before_a_stable_window_was_calm() -> None:
    settings, history = KpaSettings(), KpaHistory()
    wanted, history = kpa_replicas(settings, 100.0, 500.0, 2, history, 0.0)
    assert wanted == 8
    wanted, history = kpa_replicas(settings, 100.0, 100.0, 8, history, 30.0)
    assert wanted == 8
    wanted, history = kpa_replicas(settings, 100.0, 100.0, 8, history, 61.0)
    assert wanted == 4
