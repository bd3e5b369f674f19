"""Whatever happens to a version, every request that asks gets exactly one ending, and the right one."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from predictions_world import (
    AheadPredictor,
    CoalescingPredictor,
    ConcurrentPredictor,
    Ledger,
    ScriptedPredictor,
    Stage,
    ask,
    serving,
)
from sim_virtual_time import run_virtually

from argosy.core.errors import ArgosyError, EngineError
from argosy.core.model_archive import SequenceSettings, VersionSettings

TEXTS = st.sampled_from(["ok", "ok", "ok", "ok", "slow", "stream", "bad", "kill", "ooms", "mute", "hang"])
SEQUENCES = st.sampled_from(["", "", "a", "b"])
STEPS = st.one_of(
    st.tuples(st.just("ask"), TEXTS, SEQUENCES, st.booleans()),
    st.tuples(st.just("ask many"), st.integers(2, 12)),
    st.tuples(st.just("leave"), st.integers(0, 100)),
    st.tuples(st.just("scale"), st.integers(0, 3)),
    st.tuples(st.just("die idle")),
    st.tuples(st.just("starts fail"), st.integers(1, 9)),
    st.tuples(st.just("describe")),
    st.tuples(st.just("wait"), st.floats(0.0, 8.0)),
)
WAYS = st.builds(
    VersionSettings,
    min_workers=st.integers(0, 3),
    max_workers=st.just(3),
    batch_size=st.integers(1, 6),
    max_batch_delay_seconds=st.sampled_from([0.0, 0.5]),
    is_tuned=st.booleans(),
    job_queue_size=st.integers(1, 20),
    use_job_ticket=st.sampled_from([False, False, True]),
    client_timeout_seconds=st.sampled_from([None, None, 4.0]),
    response_timeout_seconds=st.just(30.0),
    startup_timeout_seconds=st.just(5.0),
    sequences=st.sampled_from(
        [None, SequenceSettings(max_sequences=2, max_queued_per_sequence=3, timeout_seconds=20.0)]
    ),
)
KINDS = st.sampled_from([ScriptedPredictor, ConcurrentPredictor, AheadPredictor, CoalescingPredictor])
SOFT_ENDINGS = {"QueueFull", "NoWorker", "DeadlineExceeded", "cancelled"}
ENDINGS = {
    "ok": SOFT_ENDINGS | {"OK"},
    "slow": SOFT_ENDINGS | {"SLOW"},
    "stream": SOFT_ENDINGS | {"0,1,2,STREAM"},
    "bad": SOFT_ENDINGS | {"HandlerError"},
    "mute": SOFT_ENDINGS | {"HandlerError"},
    "kill": SOFT_ENDINGS,
    "ooms": SOFT_ENDINGS | {"OutOfResources"},
    "hang": SOFT_ENDINGS,
}


class Story:
    """Plays the steps, then drains, and counts the endings."""

    def __init__(self, wanted: VersionSettings, kind: type[ScriptedPredictor]) -> None:
        self.wanted = wanted
        self.stage, self.ledger = Stage(lambda size: 0.001 if issubclass(kind, AheadPredictor) else 1.0), Ledger()
        self.stage.start_seconds = 0.5
        self.kind = kind
        self.asked: list[tuple[str, str, asyncio.Task[str]]] = []
        self.questions: list[asyncio.Task[Any]] = []

    async def play(self, steps: list[tuple[Any, ...]], drain_seconds: float) -> None:
        async with serving(self.stage, self.wanted, self.ledger, lambda seat: self.kind(self.stage, seat)) as version:
            for step in steps:
                await self.take(version, *step)
            await version.drain(drain_seconds)
            await version.close()
            assert (version.num_queued, version.num_running) == (0, 0)
            await asyncio.gather(*self.questions, return_exceptions=True)
            endings = await asyncio.gather(*(self.ending(task) for _, _, task in self.asked))
        for (text, sequence, _), ending in zip(self.asked, endings, strict=True):
            self.check(text, sequence, ending)
        assert self.ledger.arrived_ids == self.ledger.ended_ids
        assert sum(self.ledger.ended_ids.values()) == len(self.asked)
        assert set(self.ledger.ended_ids.values()) <= {1}

    async def take(self, version: Any, what: str, *details: Any) -> None:
        match what, details:
            case "ask", (text, sequence, is_edge):
                self.ask(version, text, sequence, is_edge)
            case "ask many", (count,):
                for _ in range(count):
                    self.ask(version, "ok", "", False)
            case "leave", (which,) if self.asked:
                self.asked[which % len(self.asked)][2].cancel()
            case "scale", (count,):
                version.scale(count, 3)
            case "die idle", () if self.stage.living:
                self.stage.living[0].die(EngineError("died"))
            case "starts fail", (count,):
                self.stage.start_errors = [EngineError("no start")] * count
            case "describe", ():
                self.questions.append(asyncio.create_task(version.describe()))
            case "wait", (seconds,):
                await asyncio.sleep(seconds)
        await asyncio.sleep(0)

    def ask(self, version: Any, text: str, sequence: str, is_edge: bool) -> None:
        asking = ask(version, text, sequence_id=sequence, starts_sequence=bool(sequence), ends_sequence=is_edge)
        self.asked.append((text, sequence, asyncio.create_task(asking)))

    async def ending(self, task: asyncio.Task[str]) -> str:
        await asyncio.wait([task])
        if task.cancelled():
            return "cancelled"
        error = task.exception()
        assert error is None or isinstance(error, ArgosyError), error
        return task.result() if error is None else type(error).__name__

    def check(self, text: str, sequence: str, ending: str) -> None:
        """Nobody gets another's answer; others' faults are felt only through the worker, and never twice."""
        is_shared = self.kind is ConcurrentPredictor or (sequence and self.wanted.sequences is not None)
        by_worker = {"WorkerDied", "EngineError", "OutOfResources"}
        by_batch = {"HandlerError"} if is_shared else set()
        assert ending in ENDINGS[text] | by_worker | by_batch, (text, ending)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(WAYS, KINDS, st.lists(STEPS, max_size=25), st.sampled_from([0.0, 1000.0]))
def test_every_request_has_exactly_one_ending(
    wanted: VersionSettings, kind: type[ScriptedPredictor], steps: list[tuple[Any, ...]], drain_seconds: float
) -> None:
    run_virtually(Story(wanted, kind).play(steps, drain_seconds))
