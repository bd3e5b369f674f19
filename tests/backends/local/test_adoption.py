"""Records and living processes matched: every moment at which a control plane can be killed, as values."""

from __future__ import annotations

import pytest

from argosy.backends.local.adoption import match
from argosy.backends.local.processes import ProcessIdentity, TokenBearer
from argosy.backends.local.records import ReplicaRecord
from argosy.core.workload import Workload

WORKLOAD = Workload(name="w", argv=("a",))
HERE = "boot-1"


def identity(pid: int, boot: str = HERE, ticks: int = 5) -> ProcessIdentity:
    return ProcessIdentity(pid=pid, start_ticks=ticks, boot_id=boot)


def bearer(pid: int, token: str, is_leader: bool = True) -> TokenBearer:
    return TokenBearer(identity=identity(pid), token=token, is_leader=is_leader)


def record(token: str = "t", process: ProcessIdentity | None = None, drained_at: float | None = None) -> ReplicaRecord:
    return ReplicaRecord(
        name="w-1", order=0, workload=WORKLOAD, token=token, process=process, drained_at=drained_at, ready_at=9.0
    )


def test_a_running_replica_keeps_its_process_and_its_children() -> None:
    known = record(process=identity(7))
    adoption = match([known], [bearer(7, "t"), bearer(8, "t", is_leader=False)], HERE)
    assert (adoption.running, adoption.ended, adoption.strays) == ((known,), (), ())


def test_a_start_cut_off_after_the_process_was_made_is_found_by_its_token() -> None:
    adoption = match([record()], [bearer(7, "t")], HERE)
    assert adoption.running[0].process == identity(7)


def test_a_start_cut_off_before_the_process_was_made_is_made_again() -> None:
    adoption = match([record()], [], HERE)
    assert (adoption.running, adoption.ended[0].restarts) == ((), 0)


@pytest.mark.parametrize(
    ("process", "restarts"), [(identity(7), 1), (identity(7, boot="boot-0"), 0)], ids=["died", "machine restarted"]
)
def test_a_replica_that_died_meanwhile_is_started_again(process: ProcessIdentity, restarts: int) -> None:
    (ended,) = match([record(process=process)], [], HERE).ended
    assert (ended.process, ended.restarts, ended.ready_at) == (None, restarts, None)


def test_a_pid_that_was_given_out_again_is_not_ours() -> None:
    adoption = match([record(process=identity(7, ticks=4))], [bearer(7, "another")], HERE)
    assert (adoption.running, adoption.strays) == ((), (identity(7),))


def test_a_draining_replica_goes_on_draining_and_is_forgotten_when_it_is_gone() -> None:
    draining = record(process=identity(7), drained_at=3.0)
    assert match([draining], [bearer(7, "t")], HERE).running == (draining,)
    assert match([draining], [], HERE).finished == (draining,)


def test_what_is_on_no_record_is_ended_and_children_of_a_dead_leader_too() -> None:
    adoption = match([record(process=identity(7))], [bearer(8, "t", is_leader=False), bearer(9, "unknown")], HERE)
    assert adoption.strays == (identity(8), identity(9))
