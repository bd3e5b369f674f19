"""Who of a workload's replicas takes requests, who is kept warm, who goes, and how many are missing. Pure.

Every backend that runs replicas itself asks here after each change, so scale-up, scale-down, the promotion of a warm
spare and the change to a new command are one rule and not four:

- replicas of the present command are put in order: ready ones first, then those that already take requests, then the
  oldest. The first `replicas` take requests, the next `warm_spares` are kept warm, the rest go;
- so a ready spare takes the place of a replica that is not ready, be it new, crashed or hanging;
- replicas of an earlier command of the same workload go on taking requests while too few new ones are ready.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from argosy.core.workload import Workload


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that is not draining. order: grows with age's opposite: the oldest has the lowest.

    is_current: it runs the workload's present command.
    """

    name: str
    order: int
    is_ready: bool
    is_spare: bool = False
    is_current: bool = True


class Roles(msgspec.Struct, frozen=True, kw_only=True):
    """Names of members by what they shall be, and the number of replicas to start."""

    active: tuple[str, ...]
    spare: tuple[str, ...]
    drain: tuple[str, ...]
    missing: int


def assign_roles(members: Iterable[Member], replicas: int, warm_spares: int) -> Roles:
    """What each member shall be. Fewer replicas: those that are not ready go first, then the youngest."""
    everyone = sorted(members, key=lambda each: (not each.is_ready, each.is_spare, each.order))
    current = [each for each in everyone if each.is_current]
    wanted = replicas + warm_spares
    gap = replicas - sum(each.is_ready for each in current[:replicas])
    bridges = [each for each in everyone if not each.is_current and each.is_ready][: max(gap, 0)]
    kept = {each.name for each in (*current[:wanted], *bridges)}
    return Roles(
        active=tuple(each.name for each in (*current[:replicas], *bridges)),
        spare=tuple(each.name for each in current[replicas:wanted]),
        drain=tuple(each.name for each in everyone if each.name not in kept),
        missing=max(0, wanted - len(current)),
    )


def is_same_command(one: Workload, other: Workload) -> bool:
    """Whether replicas of one serve for the other: what decides how a process is started is equal."""
    return _started_by(one) == _started_by(other)


def _started_by(workload: Workload) -> tuple[object, ...]:
    return (workload.argv, workload.env, workload.resources, workload.port)
