"""Retries stay a share of the requests, whatever happens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from argosy.gateway.retry_budget import (
    FLOOR_PER_SECOND,
    RESERVE_TOKENS,
    RetryBudget,
    after_request,
    after_retry,
)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=300),
    st.sampled_from([0.0, 0.05, 0.1, 0.5]),
)
def test_f08_never_more_than_the_ratio_the_reserve_and_the_floor(steps, ratio) -> None:
    budget, now, requests, retries = RetryBudget(), 0.0, 0, 0
    for is_retry, seconds in steps:
        now += seconds
        if is_retry:
            left = after_retry(budget, ratio, now)
            if left is not None:
                budget, retries = left, retries + 1
        else:
            budget, requests = after_request(budget, ratio, now), requests + 1
        assert budget.tokens >= 0
    if ratio == 0:
        assert retries == 0
    assert retries <= requests * ratio + RESERVE_TOKENS + now * FLOOR_PER_SECOND + 1e-6


def test_a_quiet_service_can_retry_again_after_a_while() -> None:
    budget: RetryBudget | None = RetryBudget(tokens=0.0, now=0.0)
    assert budget is not None
    assert after_retry(budget, 0.1, 1.0) is None
    assert after_retry(budget, 0.1, 5.0) is not None


def test_f11_a_clock_that_goes_back_earns_nothing() -> None:
    assert after_retry(RetryBudget(tokens=0.5, now=100.0), 0.1, 0.0) is None
