"""Which living processes belong to which record, after the one who started them is gone. Pure.

A process belongs to a record if it leads its session and carries the record's token; where the record names a process,
it must be that very one. A record without a process is one whose start was cut off: before the process was made, and
then there is none, or after, and then its token finds it. What carries a token of ours and belongs to no record is
ended: nothing of ours runs that nobody knows of.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.backends.local.processes import ProcessIdentity, TokenBearer
from argosy.backends.local.records import ReplicaRecord
from argosy.core.workload import Workload


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with what was found.

    running: records with their living process. ended: records whose process is gone and must be started again.
    finished: records of replicas that were to be ended and are. strays: processes to end, with their groups.
    """

    running: tuple[ReplicaRecord, ...] = ()
    ended: tuple[ReplicaRecord, ...] = ()
    finished: tuple[ReplicaRecord, ...] = ()
    strays: tuple[ProcessIdentity, ...] = ()


class LeftBehind(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier backend asked for and started, the oldest replica first."""

    workloads: tuple[Workload, ...] = ()
    replicas: tuple[ReplicaRecord, ...] = ()


def match(records: Sequence[ReplicaRecord], found: Sequence[TokenBearer], boot_id: str) -> Adoption:
    """Give every living process its record and every record its process, where there is one."""
    leaders = {each.token: each.identity for each in found if each.is_leader}
    running, ended, finished = [], [], []
    for record in records:
        leader = leaders.get(record.token)
        if leader is not None and record.process in (None, leader):
            running.append(msgspec.structs.replace(record, process=leader))
        elif record.drained_at is not None:
            finished.append(record)
        else:
            ended.append(_ended(record, boot_id))
    known = {each.token for each in running}
    strays = tuple(each.identity for each in found if each.token not in known)
    return Adoption(running=tuple(running), ended=tuple(ended), finished=tuple(finished), strays=strays)


def _ended(record: ReplicaRecord, boot_id: str) -> ReplicaRecord:
    """The end was not seen: no crash is counted, but a restart if it ran under this kernel."""
    restarts = record.restarts + (record.process is not None and _ran_here(record.process, boot_id))
    return msgspec.structs.replace(record, process=None, ready_at=None, restarts=restarts)


def _ran_here(process: ProcessIdentity, boot_id: str) -> bool:
    return process.boot_id == boot_id
