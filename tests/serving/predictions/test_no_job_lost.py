"""A fault in what surrounds a call, our own code included, ends no request without a word, and no worker for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest
from predictions_world import AheadPredictor, Ledger, ScriptedPredictor, Stage, ask, outcome, serving, settings
from sim_virtual_time import run_virtually

from argosy.core.errors import ArgosyError, NotBegun
from argosy.core.prediction import Prediction, PredictRequest
from argosy.serving.predictions.call import Call
from argosy.serving.predictions.job_queue import JobQueue
from argosy.serving.predictions.version import PredictionVersion
from argosy.serving.predictions.worker import Worker

PLACES: list[tuple[type, str]] = [
    (Call, "__init__"),
    (Call, "run"),
    (Call, "settle"),
    (Worker, "_settle_jobs"),
    (Worker, "_note_call"),
    (JobQueue, "_pop"),
    (JobQueue, "done"),
    (JobQueue, "push_front"),
    (JobQueue, "note_call"),
]


class Breaks:
    """A function of ours that raises, from its `first` use on, `times` times."""

    def __init__(self, function: Callable[..., Any], first: int, times: int) -> None:
        self.function = function
        self.uses = range(first, first + times)
        self.num_uses = 0

    def method(self) -> Callable[..., Any]:
        def broken(this: Any, *args: Any, **kwargs: Any) -> Any:
            self.num_uses += 1
            if self.num_uses - 1 in self.uses:
                raise TypeError("a slip in an edit")
            return self.function(this, *args, **kwargs)

        return broken


@pytest.mark.parametrize("kind", [ScriptedPredictor, AheadPredictor])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("place", "name"), PLACES)
def test_a_slip_of_ours_costs_its_own_requests_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, place: type, name: str, first: int, kind: type[ScriptedPredictor]
) -> None:
    breaks = Breaks(getattr(place, name), first, times=1)
    monkeypatch.setattr(place, name, breaks.method())

    async def story() -> None:
        stage = Stage()
        async with serving(stage, settings(batch_size=2), Ledger(), lambda seat: kind(stage, seat)) as version:
            async with asyncio.timeout(100):
                asked = [ask(version, text) for text in ("ok1", "ok2", "bad", "ok3", "kill", "ok4")]
                endings = await asyncio.gather(*asked, return_exceptions=True)
                assert len(endings) == 6
                assert await settled(version) == "OK"

    run_virtually(story())


async def settled(version: PredictionVersion) -> str:
    """The answer to a good request, once the worker is back."""
    while (ending := await outcome(version, "ok")) != "OK":  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(1.0)
    return ending


@pytest.mark.parametrize("times", [3, 1000])
def test_a_predictor_that_cannot_be_made_lets_nobody_wait(times: int) -> None:
    async def story() -> None:
        stage = Stage()
        made = 0

        def make(seat: int) -> ScriptedPredictor:
            nonlocal made
            made += 1
            if made <= times:
                raise TypeError("a slip in an edit")
            return stage.make(seat)

        async with serving(stage, settings(), Ledger(), make) as version, asyncio.timeout(100):
            ending = await outcome(version, "ok")
            assert ending == ("OK" if times == 3 else "NoWorker")

    run_virtually(story())


def test_a_job_that_was_lost_ends_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the queue and the call, where nobody holds it."""
    monkeypatch.setattr(JobQueue, "_taken", Breaks(JobQueue._taken, 0, times=1).method())

    async def story() -> None:
        stage = Stage()
        async with asyncio.timeout(100), serving(stage, settings()) as version:
            asked = asyncio.create_task(outcome(version, "ok"))
            await asyncio.sleep(0)
            assert await settled(version) == "OK"
            assert not asked.done()
        assert await asked == "NoWorker"

    run_virtually(story())


class SilentEnd(ScriptedPredictor):
    """Says that a call was not begun, because it died, and never reports its death."""

    async def predict(self, batch: Sequence[PredictRequest]) -> AsyncGenerator[Prediction]:
        for _ in batch:
            raise NotBegun("Worker died.")
        yield Prediction(index=0, body=b"")

    async def ended(self) -> ArgosyError:
        await asyncio.Event().wait()
        return NotBegun("never said")


def test_a_death_nobody_reports_is_acted_on() -> None:
    async def story() -> None:
        stage = Stage()

        def make(seat: int) -> ScriptedPredictor:
            stage.num_made += 1
            return (SilentEnd if stage.num_made == 1 else ScriptedPredictor)(stage, seat)

        async with serving(stage, settings(), Ledger(), make) as version, asyncio.timeout(100):
            assert await outcome(version, "ok") == "OK"

    run_virtually(story())
