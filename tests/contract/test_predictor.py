"""The laws of the Predictor socket, the same for every predictor. On uvloop, as the server runs them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from argosy.core.errors import EngineError, HandlerError, NotBegun, WorkerDied
from argosy.core.interfaces import CallsAhead, Predictor
from argosy.core.prediction import HandlerMetric, PredictRequest
from argosy.handlers.options import HandlerOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "handlers"))

from handlers_world import World, is_running, request

pytestmark = pytest.mark.anyio
# Answers a request with its own body, fails at "fail", naps at "nap", never answers "slow", and describes itself.
SOURCE = """
    import time

    class Handler:
        def initialize(self, context):
            pass

        def handle(self, data, context):
            context.metrics.add_counter("Calls", 1)
            words = [row["body"] for row in data]
            if b"fail" in words:
                raise ValueError("asked to")
            if b"nap" in words:
                time.sleep(0.1)
            while b"slow" in words:
                time.sleep(0.01)
            return words

        def describe_handle(self):
            return {"is": "a handler"}
"""
Make = Callable[[], Predictor]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(params=["forked worker", "spawned worker"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    world = World(tmp_path, HandlerOptions(shares_imports=request.param == "forked worker"))
    yield lambda: world.predictor(SOURCE)
    await world.close()


@pytest.fixture
async def predictor(make: Make) -> Predictor:
    made = make()
    await made.start()
    return made


def word(text: str) -> PredictRequest:
    return request(text.encode(), id=text)


async def test_every_request_of_a_batch_gets_its_answer_and_one_last_piece(predictor: Predictor) -> None:
    words = [f"word {i}" for i in range(7)]
    async with aclosing(predictor.predict([word(each) for each in words])) as pieces:
        answers = [piece async for piece in pieces]
    text = {i: b"".join(piece.body for piece in answers if piece.index == i).decode() for i in range(7)}
    assert text == dict(enumerate(words))
    assert sorted(piece.index for piece in answers if piece.is_last) == list(range(7))
    assert {piece.status for piece in answers} == {200}


async def test_a_failed_call_costs_only_itself(predictor: Predictor) -> None:
    with pytest.raises(HandlerError) as failed:
        await all_of(predictor, "one", "fail")
    assert failed.value.status == 503
    assert "asked to" in failed.value.cause
    assert await all_of(predictor, "one") == [b"one"]


async def test_calls_one_after_another_meet_the_same_model(predictor: Predictor) -> None:
    for i in range(20):
        assert await all_of(predictor, f"{i}") == [f"{i}".encode()]


async def test_closing_a_call_gives_it_up_soon(predictor: Predictor) -> None:
    running = asyncio.ensure_future(all_of(predictor, "slow"))
    await asyncio.sleep(0)
    running.cancel()
    async with asyncio.timeout(3):
        with pytest.raises(asyncio.CancelledError):
            await running
        # It either goes on serving or says that it cannot; it never hangs.
        with contextlib.suppress(WorkerDied):
            assert await all_of(predictor, "one") == [b"one"]


async def test_describes_itself(predictor: Predictor) -> None:
    assert await predictor.describe() == {"is": "a handler"}


async def test_facts_are_of_a_living_process_or_of_none(predictor: Predictor) -> None:
    facts = predictor.facts()
    assert facts.started_at > 1.7e9
    if facts.pid is not None:
        os.kill(facts.pid, 0)
        assert facts.memory_bytes > 0


async def test_reports_what_its_handler_measures(predictor: Predictor) -> None:
    seen: list[HandlerMetric] = []
    predictor.report_metrics(seen.append)
    await all_of(predictor, "one")
    assert ("Calls", "counter", 1.0) in [(each.name, each.kind, each.value) for each in seen]


async def test_close_is_idempotent_and_final(predictor: Predictor) -> None:
    pid = predictor.facts().pid
    await predictor.close()
    await predictor.close()
    assert predictor.facts().pid is None
    assert pid is None or not is_running(pid)
    with pytest.raises(EngineError):
        await all_of(predictor, "one")


async def test_close_gives_up_what_runs(predictor: Predictor) -> None:
    running = asyncio.ensure_future(all_of(predictor, "slow"))
    await asyncio.sleep(0)
    async with asyncio.timeout(3):
        await predictor.close()
        with pytest.raises(EngineError):
            await running


async def test_a_predictor_that_never_started_can_be_closed(make: Make) -> None:
    await make().close()


async def test_calls_ahead_are_answered_in_their_order(predictor: Predictor) -> None:
    if not isinstance(predictor, CallsAhead):
        pytest.skip("it takes one call at a time")
    calls = [asyncio.ensure_future(all_of(predictor, f"{i}")) for i in range(predictor.max_calls_ahead + 1)]
    assert await asyncio.gather(*calls) == [[f"{i}".encode()] for i in range(len(calls))]


async def test_a_call_ahead_that_is_taken_back_is_not_begun(predictor: Predictor) -> None:
    if not isinstance(predictor, CallsAhead):
        pytest.skip("it takes one call at a time")
    seen: list[HandlerMetric] = []
    predictor.report_metrics(seen.append)
    first, taken_back, last = (asyncio.ensure_future(all_of(predictor, each)) for each in ("nap", "fail", "last"))
    await asyncio.sleep(0)
    taken_back.cancel()
    assert await asyncio.gather(first, last) == [[b"nap"], [b"last"]]
    assert [each.value for each in seen if each.name == "Calls"] == [1.0, 1.0]


async def test_a_call_ahead_of_a_worker_that_ends_was_not_begun(predictor: Predictor) -> None:
    if not isinstance(predictor, CallsAhead):
        pytest.skip("it takes one call at a time")
    begun, ahead = (asyncio.ensure_future(all_of(predictor, each)) for each in ("slow", "one"))
    await asyncio.sleep(0)
    await predictor.close()
    async with asyncio.timeout(3):
        with pytest.raises(EngineError) as ended:
            await begun
        assert not isinstance(ended.value, NotBegun)
        with pytest.raises(NotBegun):
            await ahead


async def all_of(predictor: Predictor, *words: str) -> list[bytes]:
    async with aclosing(predictor.predict([word(each) for each in words])) as pieces:
        return [piece.body async for piece in pieces]
