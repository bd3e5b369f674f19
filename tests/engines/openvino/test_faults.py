"""What must not end the server: a hung child, a dead child, a hostile constraint, a prompt larger than the cache."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("openvino_genai")

from argosy.core.engine import EngineSettings
from argosy.core.errors import EngineDead, EngineError, InvalidRequest
from argosy.core.generation import FinishReason, GenerateRequest
from argosy.core.model import ModelFiles
from argosy.core.sampling import Constraint, ConstraintKind, SamplingParams
from argosy.engines.openvino import watchdog
from argosy.engines.openvino.constraints import MAX_CONSTRAINT_BYTES, constraint_fields, require_bounded
from argosy.engines.openvino.engine import OpenVinoEngine
from argosy.engines.openvino.generation_config import generation_config


@pytest.fixture
async def engine(smollm2_files: ModelFiles, smollm2_cache: Path) -> AsyncIterator[OpenVinoEngine]:
    # A cache of about a thousand tokens.
    settings = EngineSettings(max_num_seqs=8, kv_cache_bytes=15_000_000, cache_dir=smollm2_cache)
    engine = OpenVinoEngine(smollm2_files, settings)
    await engine.start()
    yield engine
    await engine.close()


def ask(prompt: tuple[int, ...] = (9825, 42, 216, 33), **sampling: object) -> GenerateRequest:
    params = SamplingParams(**({"max_tokens": 8, "temperature": 0.0} | sampling))  # type: ignore[arg-type]
    return GenerateRequest(request_id="r", prompt_token_ids=prompt, sampling=params)


async def finish(engine: OpenVinoEngine, request: GenerateRequest) -> FinishReason | None:
    reason = None
    async for output in engine.generate(request):
        reason = output.finish_reason
    return reason


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGSEGV])
async def test_f04_a_hung_or_dead_child_ends_every_stream(engine: OpenVinoEngine, number: signal.Signals) -> None:
    stream = engine.generate(ask(max_tokens=900))
    await anext(stream)
    pid = engine._channel.pid
    assert pid is not None
    os.kill(pid, number)
    with pytest.raises(EngineDead):
        await _drain(stream)
    with pytest.raises(EngineDead):
        await engine.check_health()


@pytest.mark.anyio
async def test_f04_a_child_that_owes_nothing_may_sleep(engine: OpenVinoEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(watchdog.PATIENCE_SECONDS, "S", 0.1)
    stream = engine.generate(ask())
    await anext(stream)
    async with asyncio.timeout(20):  # the answer ends, and nobody reads it
        while engine._watch_timer is not None:  # noqa: ASYNC110  # a timer has no event
            await asyncio.sleep(0.05)
    await engine.check_health()
    await _drain(stream)


@pytest.mark.anyio
async def test_f06_an_abort_that_is_cancelled_leaves_no_request_behind(engine: OpenVinoEngine) -> None:
    stream = engine.generate(ask(max_tokens=900))
    await anext(stream)
    reading = asyncio.create_task(_drain(stream))
    await asyncio.sleep(0)
    for _ in range(2):
        reading.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([reading])
    assert engine.stats().num_requests_running == engine.stats().num_requests_waiting == 0
    assert await finish(engine, ask()) is FinishReason.LENGTH


async def _drain(stream: object) -> None:
    async for _ in stream:  # type: ignore[attr-defined]
        pass


@pytest.mark.anyio
@pytest.mark.parametrize(
    "constraint",
    [
        Constraint(kind=ConstraintKind.REGEX, text="("),
        Constraint(kind=ConstraintKind.JSON_SCHEMA, text="{"),
        Constraint(kind=ConstraintKind.JSON_SCHEMA, text='{"$ref":"#/$defs/missing"}'),
        Constraint(kind=ConstraintKind.GRAMMAR, text="root ::= missing"),
        Constraint(kind=ConstraintKind.REGEX, text="a" * (MAX_CONSTRAINT_BYTES + 1)),
    ],
)
async def test_d27_a_bad_constraint_fails_alone(engine: OpenVinoEngine, constraint: Constraint) -> None:
    with pytest.raises(InvalidRequest, match=constraint.kind.value):
        await finish(engine, ask(constraint=constraint))
    assert await finish(engine, ask()) is FinishReason.LENGTH


@pytest.mark.anyio
async def test_f05_a_prompt_larger_than_the_cache_is_refused_by_name(engine: OpenVinoEngine) -> None:
    with pytest.raises(EngineError, match="KV cache"):
        await finish(engine, ask((1,) * 5000))
    assert await finish(engine, ask()) is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("state", "stalled_seconds", "is_hung"),
    [("T", 2.5, True), ("S", 5.0, False), ("S", 21.0, True), ("R", 30.0, False), ("R", 121.0, True)],
)
def test_f04_patience_depends_on_the_state(state: str, stalled_seconds: float, is_hung: bool) -> None:
    current = watchdog.Pulse(now=stalled_seconds, state=state)
    assert (watchdog.hang_reason(0.0, watchdog.Pulse(now=0.0), current) is not None) is is_hung


def test_greedy_draws_nothing_and_sampling_has_a_seed() -> None:
    assert "rng_seed" not in generation_config(SamplingParams(max_tokens=1, temperature=0.0), fallback_seed=7)
    assert generation_config(SamplingParams(max_tokens=1), fallback_seed=7)["rng_seed"] == 7
    assert generation_config(SamplingParams(max_tokens=1, seed=3), fallback_seed=7)["rng_seed"] == 3


def test_choices_become_an_escaped_grammar() -> None:
    fields = constraint_fields(Constraint(kind=ConstraintKind.CHOICE, choices=('a"b', "c\\d", "e\n")))
    assert fields == {"grammar": r'root ::= "a\"b" | "c\\d" | "e\u000a"'}


def test_an_empty_choice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        require_bounded(Constraint(kind=ConstraintKind.CHOICE))
