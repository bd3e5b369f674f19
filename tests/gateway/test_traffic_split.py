"""Weights become shares, and sticky callers stay where they are as long as the weights let them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.routing import RevisionRoute
from argosy.gateway.traffic_split import choose_revision


def revisions(**weights: int) -> list[RevisionRoute]:
    return [RevisionRoute(revision=name, weight=weight) for name, weight in weights.items()]


def chosen(routes: list[RevisionRoute], draw: float = 0.0, caller: str = "") -> str:
    found = choose_revision(routes, draw, caller)
    assert found is not None
    return found.revision


@pytest.mark.parametrize(
    ("draw", "expected"), [(0.0, "v1"), (0.899, "v1"), (0.901, "v2"), (0.9999999, "v2"), (1.0, "v2")]
)
def test_a_draw_falls_on_a_share(draw, expected) -> None:
    assert chosen(revisions(v1=90, v2=10, v3=0), draw) == expected


def test_no_weight_no_revision() -> None:
    assert choose_revision(revisions(v1=0), 0.5) is None
    assert choose_revision([], 0.5) is None


def test_sticky_callers_share_as_the_weights_say() -> None:
    counts = Counter(chosen(revisions(v1=90, v2=10), caller=f"caller-{number}") for number in range(5000))
    assert 0.08 < counts["v2"] / 5000 < 0.12


@given(st.integers(0, 10_000), st.integers(1, 99), st.integers(1, 99))
def test_a_caller_moves_only_towards_who_gains(caller, before, after) -> None:
    first = chosen(revisions(v1=100 - before, v2=before), caller=str(caller))
    second = chosen(revisions(v1=100 - after, v2=after), caller=str(caller))
    if first != second:
        assert second == ("v2" if after > before else "v1")


@given(st.text(max_size=20), st.floats(0, 1), st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.integers(0, 100)))
def test_always_one_that_has_weight(caller, draw, weights) -> None:
    found = choose_revision(revisions(**weights), draw, caller)
    assert (found is None) == (not any(weights.values()))
    assert found is None or found.weight > 0
