"""`argosy up` as its users have it: real processes, a real terminal's signals, and what is left when it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from argosy.client.control_client import open_client
from argosy.core.inference_service import InferenceService, InferenceServiceSpec, RevisionTemplate
from argosy.core.metadata import Metadata
from argosy.core.model import ModelFiles
from argosy.core.scaling import ScalingPolicy
from argosy.core.state_dir import ControlAddress, StateDir
from argosy.core.workload import ReplicaPhase

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

Eventually = Callable[..., Awaitable[None]]

_PROGRAM = (sys.executable, "-m", "argosy.cli.main", "up")
_CHAT = InferenceService(
    metadata=Metadata(name="chat"),
    spec=InferenceServiceSpec(
        template=RevisionTemplate(model="smollm2", engine="echo"), scaling=ScalingPolicy(min_replicas=2, max_replicas=2)
    ),
)
_QUESTION = {"model": "chat", "prompt": "1 2 3 4 5 6 7 8", "max_tokens": 8}


def relatives(state: StateDir) -> set[int]:
    """Living processes with the state directory in their command: control plane, gateway and replicas."""
    found = set()
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and str(state.root).encode() in (process / "cmdline").read_bytes():
                found.add(int(process.name))
        except OSError:
            continue
    return found


async def said_by(*arguments: str) -> tuple[int | None, str]:
    """Exit code and words of `argosy up`, which must end by itself."""
    process = await asyncio.create_subprocess_exec(
        *_PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, said.decode()


@asynccontextmanager
async def running(state: StateDir, eventually: Eventually) -> AsyncIterator[asyncio.subprocess.Process]:
    """`argosy up` on free ports, with a gateway that answers; killed on exit if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *_PROGRAM, "--state", str(state.root), "--port", "0", "--control-port", "0",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    async def is_up() -> bool:
        assert process.returncode is None
        if not state.control_file.exists():
            return False
        address = address_of(state)
        return address.process_id == process.pid and bool(address.gateway_url)

    try:
        await eventually(is_up, 60)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def address_of(state: StateDir) -> ControlAddress:
    return msgspec.json.decode(state.control_file.read_bytes(), type=ControlAddress)


async def pids_of_ready(state: StateDir) -> set[int | None]:
    """Of the service's replicas, as the control plane lists them."""
    async with open_client(state.root) as client:
        views = await client.replicas("chat")
    return {view.status.process_id for view in views if view.status.phase is ReplicaPhase.READY}


@pytest.fixture
def state(tmp_path: Path, smollm2_files: ModelFiles) -> StateDir:
    return StateDir(tmp_path / "state")


async def test_f03_f12_a_killed_control_plane_is_not_missed_and_adopts_what_runs(
    state: StateDir, eventually: Eventually
) -> None:
    """Requests go on; the next one takes over the same processes; ^C ends all of them."""
    async with running(state, eventually) as first:
        async with open_client(state.root) as client:
            await client.apply(_CHAT)

        async def are_ready() -> bool:
            return len(await pids_of_ready(state)) == 2

        await eventually(are_ready, 60)
        before, family = await pids_of_ready(state), relatives(state)
        gateway = address_of(state).gateway_url
        first.kill()
        await first.wait()
    async with httpx.AsyncClient(base_url=gateway, timeout=30) as asker:
        for _ in range(20):
            answer = await asker.post("/v1/completions", json=_QUESTION)
            assert answer.json()["choices"][0]["text"] == "1 2 3 4 "
        async with running(state, eventually) as second:
            assert address_of(state).gateway_url == gateway
            await eventually(are_ready, 10)
            assert await pids_of_ready(state) == before
            assert relatives(state) - {second.pid} == family - {first.pid}
            assert (await asker.post("/v1/completions", json=_QUESTION)).status_code == 200
            os.killpg(second.pid, signal.SIGINT)  # what a terminal does
            assert await asyncio.wait_for(second.wait(), 60) == 0
    assert relatives(state) == set()


async def test_f12_f23_a_second_one_and_a_taken_port_are_refused_in_one_line(
    state: StateDir, tmp_path: Path, eventually: Eventually
) -> None:
    async with running(state, eventually) as first:
        code, said = await said_by("--state", str(state.root), "--port", "0", "--control-port", "0")
        assert code == 2
        assert f"(process {first.pid}) uses {state.root} already" in said
        taken = address_of(state)
        for flag, other, url in (
            ("--port", "--control-port", taken.gateway_url),
            ("--control-port", "--port", taken.url),
        ):
            port = url.rpartition(":")[2]
            code, said = await said_by("--state", str(tmp_path / "other"), flag, port, other, "0")
            assert code == 2
            assert len([line for line in said.splitlines() if line.startswith("error:")]) == 1, said
            assert "Address already in use" in said
            assert f"choose another with {flag} {int(port) + 1}" in said
            assert "Traceback" not in said
            assert relatives(StateDir(tmp_path / "other")) == set()
        first.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(first.wait(), 60) == 0
    assert relatives(state) == set()


async def rehearsed(name: str, *flags: str) -> str:
    """What a benchmark says of a run of seconds, which must succeed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks", name, "--rehearsal", *flags,
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_f02_changes_under_load_lose_repeat_and_cut_nothing(smollm2_files: ModelFiles) -> None:
    """A new revision, one to three replicas and back, other weights, under 20 requests a second."""
    said = await rehearsed("rolling")
    assert "revisions, replicas and weights change | 0 [0–0]" in said


async def test_f03_f12_kills_at_random_moments_leave_one_ending_each_and_no_process(smollm2_files: ModelFiles) -> None:
    """The ten minutes are `python -m benchmarks chaos`."""
    said = await rehearsed("chaos", "--seconds", "12", "--seed", "4")
    assert "doubles, orphans, differences | 0 [0–0]" in said


async def test_f20_a_short_soak_of_a_cloud_leaves_memory_and_files_where_they_were(smollm2_files: ModelFiles) -> None:
    """The half hour is `python -m benchmarks cloud_soak`; this keeps its machinery honest, and sees gross leaks."""
    said = await rehearsed("cloud_soak", "--seconds", "9")
    assert said.count("answers that were wrong | 0 ") == 2
