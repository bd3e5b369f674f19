"""Real workers: what a handler sees and does, what it cannot do, and what happens when it goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import re
import signal
import time
from pathlib import Path

import pytest
from handlers_world import PUPPET, World, answers, bodies, do, is_running, json_request, request, until

from argosy.core.errors import EngineError, HandlerError, OutOfResources, SpecError, WorkerDied
from argosy.core.model_archive import VersionSettings
from argosy.core.prediction import HandlerMetric

pytestmark = pytest.mark.anyio

ECHO = """
    def handle(data, context):
        return data and [row["body"] for row in data]
"""


async def test_batch_of_any_bytes_comes_back(world: World) -> None:
    echo = await world.started(ECHO)
    whole = bytes(range(256)) * 8_000  # more than a socket holds
    assert await bodies(echo, request(whole), request(b""), request("grüß".encode(), "text/plain")) == [
        whole, b"", "grüß".encode(),
    ]  # fmt: skip


async def test_f03_a_killed_worker_fails_its_call_at_once_and_says_so_while_idle(world: World) -> None:
    busy, idle = await world.started(PUPPET), await world.started(PUPPET)
    async with asyncio.timeout(2):
        with pytest.raises(WorkerDied, match="SIGKILL"):
            await bodies(busy, do("die"))
        os.kill(idle.facts().pid, signal.SIGKILL)
        assert isinstance(await idle.ended(), WorkerDied)
        with pytest.raises(WorkerDied):
            await bodies(idle, do("pid"))
    leaving = await world.started(PUPPET)
    with pytest.raises(WorkerDied, match="exit code 3"):
        await bodies(leaving, do("leave"))


async def test_f03_a_death_is_seen_though_a_child_keeps_the_socket_open(world: World) -> None:
    parent = await world.started(PUPPET)
    async with asyncio.timeout(2):
        with pytest.raises(WorkerDied, match="exit code 4"):
            await bodies(parent, do("orphan_and_die"))


async def test_f04_a_worker_held_still_is_ended_within_three_seconds(world: World) -> None:
    idle = await world.started(PUPPET)
    busy = await world.started(PUPPET)
    running = asyncio.ensure_future(bodies(busy, do("loop")))
    for each in (idle, busy):
        os.kill(each.facts().pid, signal.SIGSTOP)
    async with asyncio.timeout(3.5):
        assert "held still" in str(await idle.ended())
        with pytest.raises(WorkerDied, match="held still"):
            await running


async def test_f04_a_handler_that_does_not_answer_is_ended_at_its_timeout(world: World) -> None:
    stuck = await world.started(PUPPET, VersionSettings(response_timeout_seconds=0.2))
    async with asyncio.timeout(2):
        with pytest.raises(WorkerDied, match=r"did not answer within 0.2 s"):
            await bodies(stuck, do("loop"))
        assert "did not answer" in str(await stuck.ended())


async def test_f05_a_worker_that_wants_too_much_memory_answers_so_and_ends(world: World) -> None:
    hungry = await world.started(PUPPET, VersionSettings(worker_memory_bytes=256 * 2**20))
    with pytest.raises(OutOfResources):
        await bodies(hungry, do("eat"))
    async with asyncio.timeout(2):
        assert isinstance(await hungry.ended(), OutOfResources)
    sated = await world.started(PUPPET, VersionSettings(worker_memory_bytes=256 * 2**20))
    assert await bodies(sated, do("pid"))


def sockets_of(pid: int) -> tuple[set[str], list[list[str]]]:
    links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
    return sockets, [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]


async def test_d23_the_socket_of_a_worker_has_no_name_and_nobody_listens(world: World) -> None:
    worker = await world.started(PUPPET)
    sockets, rows = sockets_of(worker.facts().pid)
    assert len(sockets) == 1
    (row,) = [row for row in rows if row[6] in sockets]
    flags, *path = row[3], *row[7:]
    assert (flags, path) == ("00000000", [])  # neither listening (00010000) nor bound to a path


async def test_d23_a_worker_holds_nothing_else_and_what_it_starts_cannot_speak_for_it(world: World) -> None:
    source = """
        import os, subprocess

        def links():
            paths = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
            return sorted({os.readlink(path).split(":")[0] for path in paths if os.path.islink(path)})

        def handle(data, context):
            if data is None:
                return
            reading, writing = os.pipe()
            if os.fork() == 0:
                os.close(reading)
                os.dup2(writing, 0)
                os.close(writing)
                os.write(0, repr(links()).encode())
                return ["I am the worker, too"]
            os.close(writing)
            forked = os.read(reading, 4096).decode()
            os.close(reading)
            executed = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True)
            return [{"own": links(), "forked": forked, "executed": executed.stdout}]
    """
    worker = await world.started(source)
    seen = json.loads((await bodies(worker, request()))[0])
    assert seen["own"] == ["/dev/null", "pipe", "socket"]
    assert "socket" not in seen["forked"] + seen["executed"]
    assert "pipe" in seen["forked"]
    assert await bodies(worker, request())


async def test_d23_what_is_no_message_ends_the_worker_not_the_server(world: World) -> None:
    liar = await world.started(PUPPET)
    with pytest.raises(WorkerDied):
        await bodies(liar, do("garbage"))


async def test_d04_pickled_weights_are_refused_and_never_read(world: World) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return os.system, (f"touch {world.root}/was-run",)

    source = "from ts.torch_handler.base_handler import BaseHandler\nclass Own(BaseHandler): pass\n"
    predictor = world.predictor(source, serialized_file="weights.safetensors", model_file="model.py")
    (world.root / "archive" / "weights.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SpecError, match="argosy archive convert"):
        await predictor.start()
    assert not (world.root / "was-run").exists()


async def test_a_failing_handler_fails_the_call_and_lives(world: World) -> None:
    worker = await world.started(PUPPET)
    with pytest.raises(HandlerError) as failed:
        await bodies(worker, do("fail"))
    assert (failed.value.status, failed.value.message) == (503, "Prediction failed")
    assert failed.value.cause == "ValueError: no such thing"
    with pytest.raises(HandlerError) as refused:
        await bodies(worker, do("refuse"))
    assert (refused.value.status, refused.value.message) == (418, "teapots only")
    assert await bodies(worker, do("pid"))


async def test_a_stream_comes_in_pieces_and_the_last_one_says_so(world: World) -> None:
    worker = await world.started(PUPPET)
    pieces = await answers(worker, do("stream"))
    assert [piece.body for piece in pieces] == [b"piece 0 ", b"piece 1 ", b"piece 2 ", b"end"]
    assert [piece.is_last for piece in pieces] == [False, False, False, True]


async def test_a_stream_nobody_reads_waits_and_giving_it_up_ends_its_worker(world: World) -> None:
    worker = await world.started(PUPPET)
    async with asyncio.timeout(5), contextlib.aclosing(worker.predict([do("stream_for_ever")])) as pieces:
        async for piece in pieces:
            assert piece.body.startswith(b"xxx")
            break
    assert isinstance(await worker.ended(), WorkerDied)


async def test_pieces_of_what_is_over_reach_nobody_and_so_many_end_the_worker(world: World) -> None:
    worker = await world.started(PUPPET)
    assert await bodies(worker, do("late")) == [b"mine"]
    async with asyncio.timeout(3):
        with pytest.raises(WorkerDied, match="does not stop answering"):
            await bodies(worker, do("late_for_ever"))


async def test_an_answer_that_cannot_be_written_fails_alone(world: World) -> None:
    worker = await world.started(PUPPET)
    with pytest.raises(HandlerError, match="Invalid model predict output"):
        await bodies(worker, do("unspeakable"))
    assert await bodies(worker, do("pid"))


async def test_giving_up_a_short_call_keeps_the_worker(world: World) -> None:
    worker = await world.started(PUPPET)
    running = asyncio.ensure_future(bodies(worker, do("stream")))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await bodies(worker, do("pid")) == [str(worker.facts().pid).encode()]


async def test_a_worker_knows_little_and_may_do_little(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGOSY_API_KEY", "secret")
    monkeypatch.setenv("MODEL_TUNING", "passed")
    world.with_options(passed_variables=("MODEL_TUNING",))
    worker = await world.started(PUPPET, VersionSettings(worker_threads=3))
    (answer,) = await answers(worker, do("look_around"))
    seen = json.loads(answer.body)
    assert "ARGOSY_API_KEY" not in seen["environment"]
    assert seen["environment"]["MODEL_TUNING"] == "passed"
    assert seen["environment"]["OMP_NUM_THREADS"] == "3"
    assert seen["path"] == seen["directory"] == str(world.root / "archive")
    assert seen["limits"] == [0, 4096]
    assert seen["group"] == seen["pid"] != os.getpgid(0)


async def test_what_a_handler_started_ends_with_its_worker(world: World) -> None:
    worker = await world.started(PUPPET)
    (child,) = await bodies(worker, do("child"))
    await worker.close()
    await until(lambda: not is_running(int(child)))


async def test_what_a_handler_prints_is_a_log_line_with_its_names(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "argosy.handlers.output")
    source = """
        import logging

        def handle(data, context):
            print("printed")
            logging.getLogger("mine").warning("logged")
            return data and ["ok"]
    """
    worker = await world.started(source)
    await until(lambda: len(caplog.records) >= 2)
    lines = [(record.line, record.model_name, record.model_version, record.worker) for record in caplog.records]
    assert lines[0] == ("printed", "m", "1.0", 9000)
    assert lines[1][0] == "WARNING mine - logged"
    assert worker.facts().memory_bytes > 2**20


START_FAULTS = [
    ("import not_there", EngineError, "No module named 'not_there'"),
    ("def handle(data, context): raise RuntimeError('no weights')", EngineError, "RuntimeError: no weights"),
    ("x = 1", SpecError, "must have a function handle"),
    ("import sys; sys.exit(7)", EngineError, "SystemExit: 7"),
    ("import os; os._exit(7)", WorkerDied, "exit code 7"),
    ("import ts.llm_launcher", EngineError, "docs/migrating-from-torchserve.md"),
    ("this is no Python", EngineError, "SyntaxError"),
]


@pytest.mark.parametrize(("source", "kind", "text"), START_FAULTS, ids=[row[0][:30] for row in START_FAULTS])
async def test_a_handler_that_cannot_start_says_why(world: World, source: str, kind: type, text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        await world.started(source)


async def test_a_start_that_takes_too_long_is_ended(world: World) -> None:
    predictor = world.predictor("while True: pass", VersionSettings(startup_timeout_seconds=0.3))
    with pytest.raises(EngineError, match=r"not ready within 0.3 s"):
        await predictor.start()
    assert predictor.facts().pid is None


async def test_a_cancelled_start_leaves_nothing(world: World) -> None:
    predictor = world.predictor("while True: pass")
    starting = asyncio.ensure_future(predictor.start())
    await until(lambda: predictor.facts().pid is not None)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert predictor.facts().pid is None


async def test_a_handler_that_floods_its_output_waits_for_the_reader_and_answers(world: World) -> None:
    worker = await world.started(PUPPET)
    started = time.process_time()
    assert await bodies(worker, do("flood")) == [b"flooded"]
    assert time.process_time() - started < 0.2  # seconds of the server's: the flood goes on for 0.3


async def test_metrics_of_a_handler_reach_the_server(world: World) -> None:
    source = """
        from ts.metrics.dimension import Dimension
        from ts.metrics.metric_type_enum import MetricTypes

        def handle(data, context):
            if data is None:
                return
            context.metrics.add_counter("Seen", len(data), None, [Dimension("Where", "here")])
            context.metrics.add_metric("Length", 3, "count", metric_type=MetricTypes.HISTOGRAM)
            return ["ok"]
    """
    worker = await world.started(source)
    seen: list[HandlerMetric] = []
    worker.report_metrics(seen.append)
    await bodies(worker, json_request({}))
    assert [(each.name, each.kind, each.value) for each in seen[:2]] == [
        ("Seen", "counter", 1.0), ("Length", "histogram", 3.0),
    ]  # fmt: skip
    assert seen[0].dimensions == {"Where": "here", "ModelName": "m", "Level": "Model"}
    assert (seen[2].name, seen[2].kind, seen[2].unit) == ("PredictionTime", "gauge", "Milliseconds")
