from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.simulator.oracle import cheapest

SLOT, CHANGE = 10.0, 4.0


def cost(replicas: list[int], misses: list[list[int]], price: float) -> float:
    added = sum(max(after - before, 0) for before, after in itertools.pairwise(replicas))
    missed = sum(misses[count - 1][slot] for slot, count in enumerate(replicas))
    return SLOT * sum(replicas) + CHANGE * added + price * missed


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda counts: st.lists(st.lists(st.integers(0, 20), min_size=4, max_size=4), min_size=counts, max_size=counts)
    ),
    st.floats(0.1, 20.0),
)
def test_no_timetable_is_cheaper(misses: list[list[int]], price: float) -> None:
    found = cheapest(misses, price, SLOT, CHANGE)
    least = min(cost(list(other), misses, price) for other in itertools.product(range(1, len(misses) + 1), repeat=4))
    assert cost(found, misses, price) <= least + 1e-6
