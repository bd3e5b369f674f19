"""Which share of the traffic each revision gets, in percent. Pure.

Shares go only to revisions with ready replicas, so the rest is scaled up to 100; if nobody is ready, the wish stands
as it is, without endpoints, and gateways hold their requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec


class LeadShare(msgspec.Struct, frozen=True, kw_only=True):
    """How far a lead may go. percent: of this step; needed: ready replicas that carry it; before: the step before."""

    percent: int = 100
    needed: int = 1
    before: int = 0


def lead_weights(lead: str, share: LeadShare, others: Sequence[str], ready: Mapping[str, int]) -> dict[str, int]:
    """The wish: so much to the lead as it can carry, the rest to `others`, by their ready replicas.

    The first of `others` gets everything that nobody is ready for.
    """
    lead_ready = ready.get(lead, 0)
    others_ready = sum(ready.get(name, 0) for name in others)
    if not others or not others_ready:
        percent = 100
    elif lead_ready >= share.needed:
        percent = share.percent
    elif not lead_ready:
        percent = 0
    else:
        carried = 100 * lead_ready // (lead_ready + others_ready)
        percent = min(share.percent, max(1, share.before, carried))
    rest = shared({name: ready.get(name, 0) for name in others}, 100 - percent)
    return {lead: percent, **rest}


def effective_weights(wish: Mapping[str, int], ready: Mapping[str, int]) -> dict[str, int]:
    """The wish among those that are ready, scaled to 100; the most ready one has all if none with a share is.

    With nothing ready anywhere the wish stands: 100 in all, and no endpoints.
    """
    able = {name: weight for name, weight in wish.items() if weight > 0 and ready.get(name, 0) > 0}
    if not able:
        able = {name: count for name, count in ready.items() if count > 0}
        best = max(able, key=lambda name: able[name], default=None)
        if best is None:
            return {**dict.fromkeys(ready, 0), **shared(wish, 100)}
        able = {best: 100}
    return {**dict.fromkeys((*wish, *ready), 0), **shared(able, 100)}


def shared(weights: Mapping[str, int], percent: int) -> dict[str, int]:
    """`percent` in whole numbers, in proportion to `weights`; equal to the first if all are zero."""
    if not weights:
        return {}
    whole = sum(weights.values())
    if whole == 0:
        first = next(iter(weights))
        return {name: percent if name == first else 0 for name in weights}
    exact = {name: percent * weight / whole for name, weight in weights.items()}
    shares = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: percent - sum(shares.values())]:
        shares[name] += 1
    return shares
