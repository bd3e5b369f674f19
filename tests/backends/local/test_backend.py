"""What only real processes can show: crashes, hangs, memory, ports, groups, devices. The rest is in the pure tests."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec
import pytest
from backend_lab import SECONDS, Lab, told

from argosy.backends.local import launcher
from argosy.core.errors import BackendError, SpecError, Unschedulable
from argosy.core.resources import Resources
from argosy.core.workload import ReplicaPhase, Workload

pytestmark = pytest.mark.anyio


async def test_d38_a_command_is_words_and_no_shell_reads_them(lab: Lab, tmp_path: Path) -> None:
    words = ("$(touch pwned)", "; touch pwned", "`touch pwned`", "$HOME", "*", "a b\n\t'\"", "中文", "$(PORT)x")
    await lab.apply(*words)
    (replica,) = await lab.ready()
    assert replica.address is not None
    port = replica.address.partition(":")[2]
    assert (await told(replica, "/args")).split("\0")[-len(words) :] == [*words[:-1], f"{port}x"]


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 200])
async def test_d06_a_name_that_would_be_a_path_is_refused(lab: Lab, name: str) -> None:
    with pytest.raises(SpecError):
        await lab.apply(name=name)


@pytest.mark.parametrize("fields", [{"argv": ()}, {"argv": ("a\0b",)}, {"replicas": -1}])
async def test_a_workload_that_cannot_run_is_refused(lab: Lab, fields: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        await lab.apply(**fields)  # type: ignore[arg-type]


async def test_f03_a_killed_replica_is_started_again_within_two_seconds_and_its_children_end(lab: Lab) -> None:
    await lab.apply("--child")
    (before,) = await lab.ready()
    group = lab.processes()
    assert len(group) == 2
    began = time.monotonic()
    os.kill(before.process_id or 0, signal.SIGKILL)
    status = await lab.until(lambda each: each.replicas[0].restarts == 1 and each.ready())
    assert time.monotonic() - began < 2.0
    (after,) = status.replicas
    assert (after.name, after.last_exit_code) == (before.name, -9)
    assert not group & lab.processes()


async def test_f04_a_hanging_replica_is_killed_and_started_again(lab: Lab) -> None:
    await lab.apply()
    (before,) = await lab.ready()
    os.kill(before.process_id or 0, signal.SIGSTOP)
    status = await lab.until(lambda each: each.replicas[0].phase is ReplicaPhase.BACKOFF)
    assert status.replicas[0].reason == "Hung"
    assert "gave no answer for 0.4 s" in status.replicas[0].message
    (after,) = (await lab.until(lambda each: each.ready())).replicas
    assert after.process_id != before.process_id


async def test_f05_a_replica_above_its_memory_limit_is_ended_and_the_reason_is_told(lab: Lab) -> None:
    await lab.apply("--bytes", str(80 * 2**20), resources=Resources(memory_bytes=60 * 2**20))
    status = await lab.until(lambda each: each.replicas[0].reason == "OutOfMemory")
    assert "may take 60 MiB" in status.replicas[0].message


async def test_f11_a_wall_clock_that_jumps_ends_nothing(lab: Lab) -> None:
    await lab.apply(start_timeout_seconds=10.0)
    (before,) = await lab.ready()
    for jump in (3600.0, -7200.0):
        lab.now += jump
        await lab.apply(replicas=2 if jump > 0 else 1, start_timeout_seconds=10.0)
        await lab.ready(2 if jump > 0 else 1)
    (after,) = await lab.ready()
    assert (after.process_id, after.restarts) == (before.process_id, 0)


async def test_f23_a_port_that_is_taken_is_left_for_another(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = iter([taken])
        free_port = launcher.free_port
        monkeypatch.setattr(launcher, "free_port", lambda used: next(ports, 0) or free_port(used))
        await lab.apply()
        (replica,) = await lab.ready()
    assert replica.address != f"127.0.0.1:{taken}"
    assert (replica.restarts, replica.reason) == (0, "")


async def test_a_start_that_takes_too_long_is_ended_and_tried_again(lab: Lab) -> None:
    await lab.apply("--ready-after", "60", start_timeout_seconds=0.2)
    status = await lab.until(lambda each: each.replicas[0].restarts == 1)
    assert status.replicas[0].reason == "StartTimeout"
    assert status.replicas[0].message == "it was not ready within 0.2 s"


async def test_a_program_that_is_not_there_is_a_crash_loop_with_its_reason(lab: Lab) -> None:
    await lab.apply(argv=("/no/such/program",))
    status = await lab.until(lambda each: each.replicas[0].reason == "CrashLoop")
    assert "No such file" in status.replicas[0].message


async def test_the_last_words_of_a_crash_loop_are_in_its_message(lab: Lab) -> None:
    await lab.apply("--fail", "3")
    status = await lab.until(lambda each: each.replicas[0].reason == "CrashLoop")
    assert "exit code 3" in status.replicas[0].message
    assert "cannot read the weights" in status.replicas[0].message


async def test_one_that_was_killed_by_a_signal_has_no_last_words(lab: Lab) -> None:
    await lab.apply()
    (replica,) = await lab.ready()
    assert replica.process_id is not None
    os.kill(replica.process_id, signal.SIGKILL)
    status = await lab.until(lambda each: each.replicas[0].restarts == 1)
    assert status.replicas[0].message == "its process was ended by signal 9"
    (again,) = await lab.ready()
    assert (again.restarts, again.message) == (1, "")


async def test_a_deletion_that_could_not_be_noted_is_noted_by_the_next_one(lab: Lab) -> None:
    """Else the workload would be back after the next start."""
    await lab.apply(replicas=0)
    record = lab.root / "backend" / "workloads" / "w"
    record.unlink()
    record.mkdir()
    with pytest.raises(BackendError, match="cannot be used"):
        await lab.backend.delete("w")
    record.rmdir()
    record.write_bytes(msgspec.json.encode(lab.workload(replicas=0)))
    await lab.backend.delete("w")
    assert not record.exists()
    assert await lab.backend.list() == []


async def test_a_replica_that_will_not_end_is_killed_after_its_grace(lab: Lab) -> None:
    await lab.apply("--stubborn", "--child", shutdown_grace_seconds=0.2)
    await lab.ready()
    await lab.backend.delete("w")
    await lab.gone()
    assert not lab.processes()


async def test_a_draining_replica_has_its_grace(lab: Lab) -> None:
    await lab.apply("--drain", "0.3")
    (replica,) = await lab.ready()
    logs = lab.backend.logs("w", replica.name, follow=True)
    assert (await anext(logs)).startswith("hello")
    await lab.backend.delete("w")
    async with asyncio.timeout(SECONDS):
        assert [line async for line in logs] == ["goodbye"]


async def test_a_replica_tells_what_its_start_consisted_of(lab: Lab) -> None:
    await lab.apply()
    (replica,) = await lab.ready()
    assert replica.start_seconds.keys() == {"weights", "ready"}
    assert replica.start_seconds["weights"] == 0.25


async def test_cores_of_its_own_are_the_only_ones_a_replica_runs_on(lab: Lab) -> None:
    await lab.apply(resources=Resources(cpu=1))
    (replica,) = await lab.ready()
    (core,) = replica.devices
    assert f"cpu:{await told(replica, '/cores')}" == core
    (status,) = [each for each in await lab.backend.devices() if each.replicas]
    assert (status.device.name, status.replicas) == (core, (replica.name,))
    assert status.used_ratio is not None
    assert 0 <= status.used_ratio <= 1


async def test_what_a_replica_takes_is_told_by_its_name(lab: Lab) -> None:
    await lab.apply("--bytes", str(30 * 2**20))
    (replica,) = await lab.ready()
    (first,) = (await lab.backend.usage()).values()
    assert first.memory_bytes > 30 * 2**20
    second = (await lab.backend.usage())[replica.name]
    assert second.cpu_ratio is not None
    assert second.cpu_ratio >= 0


async def declare_gpus(lab: Lab, count: int) -> None:
    path = lab.root / "devices.yaml"
    path.write_text(f"devices: {[{'name': f'gpu:{n}', 'kind': 'gpu', 'memory_bytes': 100} for n in range(count)]}")
    await lab.close()
    await lab.open(devices=path)


async def test_gpus_are_given_by_cuda_visible_devices_and_the_next_one_waits_for_one(lab: Lab) -> None:
    await declare_gpus(lab, 2)
    await lab.apply(replicas=3, resources=Resources(gpus=1), env={"EXTRA": "yes"})
    status = await lab.until(lambda each: len(each.ready()) == 2)
    seen = {await told(each, "/env/CUDA_VISIBLE_DEVICES") for each in status.ready()}
    assert seen == {"0", "1"}
    assert await told(status.ready()[0], "/env/EXTRA") == "yes"
    assert (status.reason, status.message.partition(":")[0]) == (
        "Unschedulable",
        "a replica needs 1 GPU(s) and 0 of 2 are free",
    )
    assert [each.phase for each in status.replicas].count(ReplicaPhase.PENDING) == 1
    await lab.apply(name="other", replicas=0)
    await lab.apply(replicas=1, resources=Resources(gpus=1), env={"EXTRA": "yes"})
    await lab.apply(name="other", resources=Resources(gpus=1))
    await lab.until(lambda each: each.name == "other" and each.ready())


async def test_a_gang_starts_whole_or_not_at_all(lab: Lab) -> None:
    await declare_gpus(lab, 2)
    needs = Resources(gpus=1)
    with pytest.raises(Unschedulable):
        await lab.apply(replicas=3, gang=True, resources=needs)
    await lab.apply(name="other", resources=needs)
    await lab.until(lambda each: each.name == "other" and each.ready())
    await lab.apply(replicas=2, gang=True, resources=needs)
    status = await lab.until(lambda each: each.name == "w")
    assert {each.phase for each in status.replicas} == {ReplicaPhase.PENDING}
    await lab.backend.delete("other")
    await lab.until(lambda each: each.name == "w" and len(each.ready()) == 2)


async def test_what_can_never_fit_is_refused_at_once(lab: Lab) -> None:
    with pytest.raises(Unschedulable, match="needs 4096 CPU cores"):
        await lab.apply(resources=Resources(cpu=4096))
    assert await lab.backend.list() == []


async def test_f09_a_full_disk_stops_no_replica_and_starts_wait(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.apply()
    (before,) = await lab.ready()

    def full(record: object) -> None:
        raise BackendError("the backend's directory cannot be used (No space left on device): make room")

    monkeypatch.setattr(lab.backend._records, "save_replica", full)
    await lab.apply(replicas=2)
    status = await lab.until(lambda each: any(replica.reason == "CannotStart" for replica in each.replicas))
    assert [each.process_id for each in status.ready()] == [before.process_id]
    monkeypatch.undo()
    await lab.ready(2)


STANDBY = """#!{python} -IS
import json, os, sys
if sys.argv[1] == "standby":
    print("imported", flush=True)
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    sys.argv[1:] = json.loads(line)["argv"]
exec(compile(open("{stand_in}").read(), "stand_in", "exec"))
"""


async def test_a_standby_becomes_the_next_replica_and_another_one_takes_its_place(lab: Lab) -> None:
    program = lab.root / "argosy"
    stand_in = Path(__file__).parent.parent / "stand_in.py"
    program.write_text(STANDBY.format(python=sys.executable, stand_in=stand_in))
    program.chmod(0o755)
    workload = Workload(name="w", argv=(str(program), "serve", "--port", "$(PORT)"), readiness=lab.workload().readiness)
    await lab.backend.apply(workload)
    await lab.ready()
    await lab.eventually(lambda: len(lab.processes()) == 2)
    (standby,) = lab.processes() - {each.process_id for each in await lab.ready()}
    await lab.apply(argv=workload.argv, replicas=2, liveness=workload.liveness)
    replicas = await lab.ready(2)
    (second,) = [each for each in replicas if each.process_id == standby]
    lines = [line async for line in lab.backend.logs("w", second.name, follow=False)]
    assert lines[:2] == ["imported", f"hello from {standby}"]
    await lab.eventually(lambda: len(lab.processes()) == 3)
    await lab.close()
    await lab.open()
    assert {each.process_id for each in await lab.ready(2)} == {each.process_id for each in replicas}
