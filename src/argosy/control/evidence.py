"""What counts prove, and what they do not: exact tests for shares, and quantiles of histograms. Pure.

Few requests prove little, and this says so: bounds are Clopper and Pearson's, exact for any number of requests, and a
latency is compared by counting answers beyond a limit, so no shape of the distribution is assumed.

Source: Clopper and Pearson 1934, Biometrika 26; incomplete beta function by Lentz's continued fraction, Press et al.,
Numerical Recipes, 3rd edition, section 6.4.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from argosy.core.load_report import LATENCY_BOUNDS_SECONDS

_EPSILON = 1e-12
_TINY = 1e-300
_MAX_STEPS = 10_000


def binomial_tail(hits: int, trials: int, share: float) -> float:
    """The chance of `hits` or more among `trials`, if each is a hit with chance `share`."""
    if hits <= 0:
        return 1.0
    if share <= 0.0 or hits > trials:
        return 0.0
    if share >= 1.0:
        return 1.0
    return _beta_ratio(share, float(hits), float(trials - hits + 1))


def upper_share(hits: int, trials: int, doubt: float) -> float:
    """The largest share that still explains so few hits: with more, they would be rarer than `doubt`."""
    if trials <= 0 or hits >= trials:
        return 1.0
    low, high = hits / trials, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        # P(X <= hits) = 1 - P(X >= hits + 1)
        if 1.0 - binomial_tail(hits + 1, trials, middle) > doubt:
            low = middle
        else:
            high = middle
    return high


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The seconds that `share` of the answers stayed below, within a bucket by proportion; None without answers.

    Beyond the last bound nothing is known: the bound itself is given.
    """
    total = sum(counts)
    if total == 0:
        return None
    rank = share * total
    below = 0
    for index, count in enumerate(counts):
        if count and below + count >= rank:
            return _within(index, (rank - below) / count)
        below += count
    return LATENCY_BOUNDS_SECONDS[-1]


def upper_quantile(counts: Sequence[int], share: float, doubt: float) -> float | None:
    """A bound above the true quantile, wrong with chance `doubt` at most: an order statistic. None if too few answers.

    Source: distribution-free confidence bounds for quantiles, Conover, Practical Nonparametric Statistics, 3.2.
    """
    total = sum(counts)
    if total == 0 or binomial_tail(total, total, share) > doubt:
        return None
    low, high = 0, total - 1
    while low < high:
        middle = (low + high) // 2
        # The answer of this rank lies above the quantile unless as many or more stayed below it.
        if binomial_tail(middle + 1, total, share) <= doubt:
            high = middle
        else:
            low = middle + 1
    return quantile(counts, (low + 1) / total)


def count_above(counts: Sequence[int], seconds: float) -> int:
    """Answers that surely took longer: of the bucket `seconds` falls into, its part above, rounded down."""
    index = bisect_right(LATENCY_BOUNDS_SECONDS, seconds)
    above = sum(counts[index + 1 :])
    if index >= len(LATENCY_BOUNDS_SECONDS):
        return 0
    lower = LATENCY_BOUNDS_SECONDS[index - 1] if index else 0.0
    upper = LATENCY_BOUNDS_SECONDS[index]
    return above + math.floor(counts[index] * (upper - seconds) / (upper - lower))


def _within(index: int, part: float) -> float:
    if index >= len(LATENCY_BOUNDS_SECONDS):
        return LATENCY_BOUNDS_SECONDS[-1]
    lower = LATENCY_BOUNDS_SECONDS[index - 1] if index else 0.0
    return lower + part * (LATENCY_BOUNDS_SECONDS[index] - lower)


def _beta_ratio(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    front = math.exp(log_front)
    if x < (a + 1.0) / (a + b + 2.0):
        return min(1.0, front * _fraction(x, a, b) / a)
    return max(0.0, 1.0 - front * _fraction(1.0 - x, b, a) / b)


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1.0 / _nonzero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _MAX_STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d, c = 1.0 / _nonzero(1.0 + even * d), _nonzero(1.0 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d, c = 1.0 / _nonzero(1.0 + odd * d), _nonzero(1.0 + odd / c)
        value *= d * c
        if abs(d * c - 1.0) < _EPSILON:
            break
    return value


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
