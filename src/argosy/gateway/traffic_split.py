"""Which revision gets a request: by weights, the same for the same caller if the service is sticky. Pure.

A sticky caller is placed by weighted rendezvous hashing: every revision draws a number from (service, caller, revision)
and its weight, the highest wins. When weights change, only as many callers move as the change asks for, and only
towards revisions that gained: a canary that goes from 5 to 25 percent keeps the callers it has.

Source: Schindelhauer & Schomaker, "Weighted distributed hash tables" (2005): score = weight / -ln(hash).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

from argosy.core.routing import RevisionRoute

_HASH_SPAN = 2.0**64


def choose_revision(revisions: Sequence[RevisionRoute], draw: float, caller: str = "") -> RevisionRoute | None:
    """The revision for a request; None if none of them has weight.

    revisions: those that can take it now, so that one without replicas leaves its share to the others.
    draw: from [0, 1), used unless `caller` says who asks (service and name, for sticky services).
    """
    weighted = [each for each in revisions if each.weight > 0]
    if not weighted:
        return None
    if len(weighted) == 1:
        return weighted[0]
    if caller:
        return max(weighted, key=lambda each: (_score(caller, each), each.revision))
    point = draw * sum(each.weight for each in weighted)
    for each in weighted:
        point -= each.weight
        if point < 0:
            return each
    return weighted[-1]


def _score(caller: str, revision: RevisionRoute) -> float:
    digest = blake2b(f"{revision.revision}\0{caller}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "little") + 1) / (_HASH_SPAN + 1)
    return revision.weight / -math.log(uniform)
