"""How many retries a service may cost: a share of its requests, so that retries never become the load. Pure.

A bucket of tokens: every request puts `ratio` of a token in, every retry takes one out. A few are there from the start
and come back slowly, so that a quiet service can still retry. Over time retries stay below `ratio` of the requests
plus `FLOOR_PER_SECOND` (F-08: no retry storm). A ratio of 0 means no retries at all.

Source: the retry budgets of Finagle and Linkerd.
"""

from __future__ import annotations

import msgspec

RESERVE_TOKENS = 10.0
FLOOR_PER_SECOND = 0.2
# What a long good time may save up: a replica that dies with all its requests is a burst.
_MAX_SAVED_REQUESTS = 1_000


class RetryBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The bucket. now: monotonic seconds of the last change."""

    tokens: float = RESERVE_TOKENS
    now: float = 0.0


def after_request(budget: RetryBudget, ratio: float, now: float) -> RetryBudget:
    """The budget after a first attempt."""
    refilled = _refilled(budget, now)
    return RetryBudget(tokens=min(refilled + ratio, max(RESERVE_TOKENS, ratio * _MAX_SAVED_REQUESTS)), now=now)


def after_retry(budget: RetryBudget, ratio: float, now: float) -> RetryBudget | None:
    """The budget after a retry; None if there is none left for it."""
    refilled = _refilled(budget, now)
    if ratio <= 0 or refilled < 1:
        return None
    return RetryBudget(tokens=refilled - 1, now=now)


def _refilled(budget: RetryBudget, now: float) -> float:
    """Time brings back the reserve, never more."""
    earned = max(0.0, now - budget.now) * FLOOR_PER_SECOND
    return max(budget.tokens, min(RESERVE_TOKENS, budget.tokens + earned))
