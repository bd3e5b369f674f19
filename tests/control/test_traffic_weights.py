"""Who gets which share: never anybody who cannot answer, and always 100 in all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.control.traffic_weights import LeadShare, effective_weights, lead_weights, shared

NAMES = st.sampled_from(["v1", "v2", "v3", "v4"])


@pytest.mark.parametrize(
    ("share", "ready", "expected"),
    [
        (LeadShare(needed=4), {"v1": 4, "v2": 0}, {"v2": 0, "v1": 100}),
        (LeadShare(needed=4), {"v1": 3, "v2": 1}, {"v2": 25, "v1": 75}),
        (LeadShare(needed=4), {"v1": 1, "v2": 4}, {"v2": 100, "v1": 0}),
        (LeadShare(needed=4), {"v1": 0, "v2": 1}, {"v2": 100, "v1": 0}),  # nobody else could
        (LeadShare(percent=10, needed=1), {"v1": 4, "v2": 1}, {"v2": 10, "v1": 90}),
        (LeadShare(percent=50, needed=2, before=10), {"v1": 4, "v2": 1}, {"v2": 20, "v1": 80}),
        (LeadShare(percent=50, needed=3, before=25), {"v1": 9, "v2": 1}, {"v2": 25, "v1": 75}),  # not less than before
    ],
)
def test_the_wish(share: LeadShare, ready: dict[str, int], expected: dict[str, int]) -> None:
    assert lead_weights("v2", share, ["v1"], ready) == expected


@pytest.mark.parametrize(
    ("wish", "ready", "expected"),
    [
        ({"v1": 90, "v2": 10}, {"v1": 1, "v2": 1}, {"v1": 90, "v2": 10}),
        ({"v1": 90, "v2": 10}, {"v1": 1, "v2": 0}, {"v1": 100, "v2": 0}),
        ({"v1": 100, "v2": 0}, {"v1": 0, "v2": 1}, {"v1": 0, "v2": 100}),  # better than no answer
        ({"v1": 100}, {"v1": 0, "v2": 1, "v3": 2}, {"v1": 0, "v2": 0, "v3": 100}),
        ({"v1": 90, "v2": 10}, {"v1": 0, "v2": 0}, {"v1": 90, "v2": 10}),  # the gateway holds
        ({"v1": 50, "v2": 25, "v3": 25}, {"v1": 0, "v2": 1, "v3": 1}, {"v1": 0, "v2": 50, "v3": 50}),
    ],
)
def test_what_is_published(wish: dict[str, int], ready: dict[str, int], expected: dict[str, int]) -> None:
    assert effective_weights(wish, ready) == expected


@given(
    st.dictionaries(NAMES, st.integers(0, 100), min_size=1),
    st.dictionaries(NAMES, st.integers(0, 3)),
)
def test_it_is_a_hundred_and_only_for_those_who_can(wish: dict[str, int], ready: dict[str, int]) -> None:
    weights = effective_weights(wish, ready)
    assert sum(weights.values()) == 100
    if any(ready.values()):
        assert all(ready.get(name) for name, weight in weights.items() if weight)


@given(st.dictionaries(NAMES, st.integers(0, 1000), min_size=1), st.integers(0, 100))
def test_shares_add_up_and_keep_their_order(weights: dict[str, int], percent: int) -> None:
    shares = shared(weights, percent)
    assert sum(shares.values()) == percent
    if sum(weights.values()):
        for one in weights:
            for other in weights:
                assert weights[one] <= weights[other] or shares[one] >= shares[other]
