"""A control plane that ended, or was killed, and the next one: the same replicas, none twice, none forgotten."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys

import msgspec
import pytest
from backend_lab import STAND_IN, Lab

from argosy.backends.local.processes import TOKEN_VARIABLE, ProcessIdentity, read_stat, spawn
from argosy.backends.local.records import Records, ReplicaRecord
from argosy.core.errors import BackendError
from argosy.core.workload import ReplicaPhase

pytestmark = pytest.mark.anyio


def records(lab: Lab) -> list[ReplicaRecord]:
    return Records(lab.spec.root).replicas()


def started_unseen(lab: Lab, token: str, port: int) -> ProcessIdentity:
    """A process as a starter makes it, whose starter is killed in that moment."""
    environment = {**os.environ, TOKEN_VARIABLE: token}
    argv = (sys.executable, "-I", "-S", str(STAND_IN), "--port", str(port))
    return spawn(argv, environment, lab.root / "unseen.log")


async def test_replicas_are_as_they_were_in_the_first_list(lab: Lab) -> None:
    await lab.apply(replicas=2)
    before = await lab.ready(2)
    await lab.close()
    assert {each.process_id for each in before} <= lab.processes()
    await lab.open()
    (status,) = await lab.backend.list()
    assert status.ready() == tuple(before)


async def test_one_that_died_meanwhile_is_started_again(lab: Lab) -> None:
    await lab.apply(replicas=2)
    before = await lab.ready(2)
    await lab.close()
    os.kill(before[0].process_id or 0, signal.SIGKILL)
    await lab.open()
    after = await lab.ready(2)
    assert [each.name for each in after] == [each.name for each in before]
    assert [each.restarts for each in after] == [1, 0]


async def test_one_started_in_the_moment_of_a_kill_is_adopted_by_its_token(lab: Lab) -> None:
    await lab.apply()
    (before,) = await lab.ready()
    await lab.close()
    (record,) = records(lab)
    os.kill(before.process_id or 0, signal.SIGKILL)
    token = f"{record.token.partition('/')[0]}/w/cut-off"
    started = started_unseen(lab, token, record.port)
    intent = msgspec.structs.replace(record, token=token, process=None, ready_at=None)
    Records(lab.spec.root).save_replica(intent)
    await lab.open()
    (after,) = await lab.ready()
    assert (after.process_id, after.name, after.restarts) == (started.pid, before.name, 0)


async def test_what_carries_our_token_and_is_on_no_record_is_ended(lab: Lab) -> None:
    await lab.close()
    identity = (lab.spec.root / "identity").read_text()
    started_unseen(lab, f"{identity}/w/orphan", 0)
    foreign = started_unseen(lab, "another-directory/w/1", 0)
    assert len(lab.processes()) == 1
    await lab.open()
    await lab.eventually(lambda: not lab.processes())
    assert read_stat(foreign.pid) is not None
    os.kill(foreign.pid, signal.SIGKILL)


async def test_a_draining_replica_is_not_told_twice_and_still_ends(lab: Lab) -> None:
    await lab.apply("--drain", "0.4")
    (replica,) = await lab.ready()
    await lab.backend.delete("w")
    await lab.until(lambda each: each.replicas[0].phase is ReplicaPhase.DRAINING)
    log = lab.root / "logs" / "w" / replica.name / "0001.log"
    await lab.eventually(lambda: "goodbye" in log.read_text())
    await lab.close()
    await lab.open()
    (status,) = await lab.backend.list()
    assert status.replicas[0].phase is ReplicaPhase.DRAINING
    assert log.read_text().count("goodbye") == 1
    await lab.gone()


async def test_a_second_one_is_refused_while_the_first_is_open(lab: Lab) -> None:
    with pytest.raises(BackendError, match="another process"):
        await Lab(lab.root).open()


async def test_stopping_with_all_replicas_leaves_what_was_asked_for(lab: Lab) -> None:
    await lab.apply(replicas=2)
    await lab.ready(2)
    await lab.close()
    await lab.open(stop_replicas=True)
    await lab.close()
    assert not lab.processes()
    await lab.open(stop_replicas=False)
    await lab.ready(2)


KILLED = """
import asyncio, sys
from pathlib import Path
import msgspec
from argosy.backends import BackendSpec
from argosy.backends.local.opening import open_local
from argosy.core.workload import Workload

async def main():
    root = Path(sys.argv[1])
    workload = msgspec.json.decode(sys.argv[2], type=Workload)
    async with open_local(BackendSpec(root=root / "backend", logs=root / "logs")) as backend:
        print("open", flush=True)
        count = 0
        while True:
            count = count % 3 + 1
            await backend.apply(msgspec.structs.replace(workload, replicas=count))
            await backend.changed()

asyncio.run(main())
"""


async def test_f10_killed_at_random_moments_it_leaves_no_orphan_and_no_double(lab: Lab) -> None:
    workload = lab.workload(shutdown_grace_seconds=0.2)
    for seed in range(3):
        await lab.close()
        program = [sys.executable, "-c", KILLED, str(lab.root), msgspec.json.encode(workload).decode()]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as killed:  # noqa: ASYNC220
            assert killed.stdout is not None
            assert killed.stdout.readline() == "open\n"
            await asyncio.sleep(random.Random(seed).random() * 0.3)
            killed.kill()
            killed.wait()
        await lab.open()
        await lab.backend.apply(msgspec.structs.replace(workload, replicas=2))
        replicas = await lab.ready(2)
        assert lab.processes() == {each.process_id for each in replicas}
        # One adopted too many ends first and is struck off the records in a later round.
        await lab.eventually(lambda: len(records(lab)) == 2)
