"""Does the new revision hold against the old one? A verdict with a sentence, from counts only. Pure.

Three questions: do more of its requests fail than the old one's and the policy's margin; do more than a tenth of its
answers take longer than the old one's p90 times the allowed ratio, to the first token and per token.

- abort: one of them is surely so: by chance it would look so less than once in a hundred steps. For a look between
  the steps' ends, of which there are many, the bar is a thousandth, and a twofold ratio.
- advance: none of them looks so, and enough requests were answered. That is no proof that the new one is as good:
  with few requests a small harm cannot be seen. It is why the first steps are small.
- hold: too few requests, or it looks worse but may be chance. More requests will tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from argosy.control.evidence import binomial_tail, count_above, quantile, upper_quantile, upper_share
from argosy.control.traffic import TrafficWindow
from argosy.core.inference_service import PromotionPolicy

SURE = 0.01
SURE_AT_ANY_TIME = 0.001
_GROSS_FACTOR = 2.0
_TAIL = 0.9
# Without so many answers of the old revision nothing is compared with it; a gross failure needs so many of the new.
_MIN_REFERENCE = 20
_MIN_GROSS = 5


class VerdictKind(StrEnum):
    """What shall happen to the new revision."""

    HOLD = "hold"
    ADVANCE = "advance"
    ABORT = "abort"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A kind, and the sentence with the figures behind it."""

    kind: VerdictKind
    message: str


class _Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One question's answer. is_worse: it looks so; is_sure: it is no chance. message: the figures."""

    is_worse: bool
    is_sure: bool
    message: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two revisions and what each did meanwhile."""

    target: str
    stable: str
    new: TrafficWindow
    old: TrafficWindow


def verdict(policy: PromotionPolicy, seen: Comparison) -> Verdict:
    """At the end of a step: advance, hold or abort."""
    findings = list(_findings(policy, seen, doubt=SURE, factor=1.0))
    sure = [each.message for each in findings if each.is_sure]
    if sure and seen.new.answers >= min(policy.min_requests, _MIN_GROSS):
        return Verdict(kind=VerdictKind.ABORT, message="; ".join(sure))
    if seen.new.answers < policy.min_requests:
        message = f"{seen.target} has answered {seen.new.answers} of the {policy.min_requests} requests a verdict needs"
        return Verdict(kind=VerdictKind.HOLD, message=message)
    if seen.old.answers < _MIN_REFERENCE:
        message = f"{seen.stable} has answered {seen.old.answers} requests; a comparison needs {_MIN_REFERENCE}"
        return Verdict(kind=VerdictKind.HOLD, message=message)
    worse = [each.message for each in findings if each.is_worse]
    if worse:
        return Verdict(
            kind=VerdictKind.HOLD, message=f"{'; '.join(worse)}; that may be chance, more requests will tell"
        )
    return Verdict(kind=VerdictKind.ADVANCE, message="; ".join(each.message for each in findings))


def gross_failure(policy: PromotionPolicy, seen: Comparison) -> Verdict | None:
    """At any moment: abort if the harm is beyond doubt already."""
    if seen.new.answers < _MIN_GROSS:
        return None
    findings = _findings(policy, seen, doubt=SURE_AT_ANY_TIME, factor=_GROSS_FACTOR)
    sure = [each.message for each in findings if each.is_sure]
    return Verdict(kind=VerdictKind.ABORT, message="; ".join(sure)) if sure else None


def _findings(policy: PromotionPolicy, seen: Comparison, *, doubt: float, factor: float) -> Iterator[_Finding]:
    yield _errors(policy, seen, doubt)
    for what, ratio, field in (
        ("time to first token", policy.max_ttft_ratio, "ttft_counts"),
        ("time per token", policy.max_tpot_ratio, "tpot_counts"),
    ):
        found = _latency(what, ratio * factor, seen, field, doubt)
        if found is not None:
            yield found


def _errors(policy: PromotionPolicy, seen: Comparison, doubt: float) -> _Finding:
    """Without enough of the old revision to compare with, more than half failing is what counts as worse."""
    new, old = seen.new, seen.old
    share = new.errors / new.answers if new.answers else 0.0
    old_share = old.errors / old.answers if old.answers else 0.0
    limit = 0.5
    if old.answers >= _MIN_REFERENCE:
        limit = upper_share(old.errors, old.answers, doubt) + policy.max_error_rate
    message = (
        f"{share:.2%} of {new.answers} requests to {seen.target} failed, "
        f"of {old.answers} to {seen.stable} {old_share:.2%}"
    )
    is_sure = new.answers > 0 and binomial_tail(new.errors, new.answers, limit) < doubt
    return _Finding(is_worse=share > old_share + policy.max_error_rate, is_sure=is_sure, message=message)


def _latency(what: str, ratio: float, seen: Comparison, field: str, doubt: float) -> _Finding | None:
    """If the new p90 keeps the ratio, at most a tenth of its answers lie beyond the old p90 times it."""
    new, old = getattr(seen.new, field), getattr(seen.old, field)
    new_p90, old_p90, bound = quantile(new, _TAIL), quantile(old, _TAIL), upper_quantile(old, _TAIL, doubt)
    if new_p90 is None or old_p90 is None or sum(old) < _MIN_REFERENCE:
        return None
    message = f"p90 {what} is {new_p90:.3g} s with {seen.target}, {old_p90:.3g} s with {seen.stable}"
    is_sure = False
    if bound is not None:
        is_sure = binomial_tail(count_above(new, ratio * bound), sum(new), 1.0 - _TAIL) < doubt
    return _Finding(is_worse=new_p90 > ratio * old_p90, is_sure=is_sure, message=message)
