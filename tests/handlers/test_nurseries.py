"""Nurseries: what workers share, what ends one, and what that costs the others."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys

import msgspec
import pytest
from handlers_world import PUPPET, World, bodies, do, parent_of, request

from argosy.core.errors import WorkerDied
from argosy.handlers.nursery_process import NurseryProcess

pytestmark = pytest.mark.anyio


async def test_two_workers_are_two_processes_of_one_nursery(world: World) -> None:
    first, second = await world.started(PUPPET), await world.started(PUPPET)
    pids = {first.facts().pid, second.facts().pid}
    assert pids == {int((await bodies(each, do("pid")))[0]) for each in (first, second)}
    assert len({parent_of(pid) for pid in pids} | {os.getpid()}) == 2


async def test_f04_a_nursery_held_still_is_replaced(world: World) -> None:
    worker = await world.started(PUPPET)
    os.kill(parent_of(worker.facts().pid), signal.SIGSTOP)
    async with asyncio.timeout(3.5):
        again = await world.started(PUPPET)
    assert await bodies(again, do("pid"))
    assert parent_of(again.facts().pid) != os.getpid()


async def test_libraries_that_start_threads_are_not_forked(world: World, caplog: pytest.LogCaptureFixture) -> None:
    # A prepared environment whose "numpy" has a thread of its own.
    packages = world.root / "environment"
    packages.mkdir()
    (packages / "numpy.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    caplog.set_level(logging.INFO, "argosy.handlers.nursery")
    predictor = world.predictor("import numpy\n\ndef handle(data, context):\n    return data and [numpy.__file__]\n")
    predictor._archive = msgspec.structs.replace(predictor._archive, environment=packages)
    await predictor.start()
    assert await bodies(predictor, request()) == [str(packages / "numpy.py").encode()]
    assert [record.message for record in caplog.records] == ["a worker shares no imports"]


async def test_forked_workers_draw_numbers_of_their_own(world: World) -> None:
    pytest.importorskip("numpy")
    source = """
        import numpy.random
        import random

        def handle(data, context):
            return data and [[numpy.random.random(), random.random()]]
    """
    first, second = [json.loads((await bodies(await world.started(source), request()))[0]) for _ in range(2)]
    assert len({*first, *second}) == 4


LIBRARIES_THAT_END_A_PROCESS = {
    "exits": "raise SystemExit(3)",
    "is killed": "if 'argosy.handlers.worker.nursery' in sys.orig_argv: os._exit(3)",
}


@pytest.mark.parametrize("how", LIBRARIES_THAT_END_A_PROCESS)
async def test_a_library_that_ends_the_process_costs_no_other_worker(world: World, how: str) -> None:
    packages = world.root / "environment"
    packages.mkdir()
    (packages / "numpy.py").write_text(f"import os, sys\n{LIBRARIES_THAT_END_A_PROCESS[how]}\n")
    others = await world.started(PUPPET)
    source = "try:\n    import numpy\nexcept SystemExit:\n    pass\ndef handle(data, context): return data and ['ok']\n"
    for _ in range(2):
        predictor = world.predictor(source)
        predictor._archive = msgspec.structs.replace(predictor._archive, environment=packages)
        await predictor.start()
        assert await bodies(predictor, request()) == [b"ok"]
    assert await bodies(others, do("pid"))


async def test_more_starts_than_a_nursery_takes_at_once_wait(world: World) -> None:
    packages = world.root / "environment"
    packages.mkdir()
    (packages / "numpy.py").write_text("import time\ntime.sleep(60)\n")
    process = NurseryProcess(sys.executable, {}, packages)
    ours, theirs = socket.socketpair()
    starts = [asyncio.ensure_future(process.fork(("numpy",), theirs, 2)) for _ in range(1_000)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert process.is_alive
    assert not [start for start in starts if start.done()]
    for start in starts:
        start.cancel()
    await asyncio.gather(*starts, return_exceptions=True)
    os.kill(process._process.pid, signal.SIGKILL)
    await process.close()
    ours.close()
    theirs.close()


async def test_a_lost_nursery_costs_its_workers_and_a_new_one_takes_over(world: World) -> None:
    worker = await world.started(PUPPET)
    os.kill(parent_of(worker.facts().pid), signal.SIGKILL)
    async with asyncio.timeout(3):
        assert isinstance(await worker.ended(), WorkerDied)
        again = await world.started(PUPPET)
    assert await bodies(again, do("pid"))
