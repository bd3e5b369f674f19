"""What the engine laws do not say: beams, int8, its arguments, a library that fails, and who waits for whom."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from argosy.core.engine import EngineFeature, EngineSettings
from argosy.core.errors import EngineError, SpecError
from argosy.core.generation import FinishReason, GenerateOutput, GenerateRequest
from argosy.core.model import ModelFiles
from argosy.core.sampling import SamplingParams

ctranslate2 = pytest.importorskip("ctranslate2", reason="needs the extra [seq2seq]")
sys.path.insert(0, str(Path(__file__).parent))
tiny_t5 = importlib.import_module("tiny_t5")

from argosy.engines.seq2seq.engine import Seq2SeqEngine  # noqa: E402
from argosy.engines.seq2seq.lanes import Lanes, LaneSettings  # noqa: E402
from argosy.engines.seq2seq.request_rows import Row  # noqa: E402

pytestmark = pytest.mark.anyio
PROMPT = (5, 9, 17, 33, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    made: ModelFiles = tiny_t5.write_tiny_t5(tmp_path_factory.mktemp("tiny"))
    return made


def ask(prompt: Sequence[int] = PROMPT, name: str = "r", **sampling: object) -> GenerateRequest:
    params = SamplingParams(**({"max_tokens": 12, "temperature": 0.0} | sampling))  # type: ignore[arg-type]
    return GenerateRequest(request_id=name, prompt_token_ids=tuple(prompt), sampling=params)


async def outputs_of(engine: Seq2SeqEngine, request: GenerateRequest) -> list[GenerateOutput]:
    async with aclosing(engine.generate(request)) as stream:
        return [output async for output in stream]


async def ids_of(engine: Seq2SeqEngine, request: GenerateRequest) -> list[int]:
    return [token_id for output in await outputs_of(engine, request) for token_id in output.token_ids]


@pytest.fixture
async def started(files: ModelFiles) -> AsyncIterator[Callable[..., Any]]:
    """`await started(**engine_args)`: a running engine."""
    engines: list[Seq2SeqEngine] = []

    async def start(**arguments: str | int | float | bool) -> Seq2SeqEngine:
        engine = Seq2SeqEngine(files, EngineSettings(engine_args={"compute_type": "float32"} | arguments))
        engines.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in engines:
        await engine.close()


async def test_requests_of_all_lengths_are_answered_as_if_alone(started: Callable[..., Any]) -> None:
    engine = await started(batch_size=8)
    naive = tiny_t5.NaiveT5(tiny_t5.tensors_of(tiny_t5.CONFIG), tiny_t5.CONFIG)
    prompts = [(*((7 * n + 3 * k) % 90 + 2 for k in range(1 + n % 9)), 1) for n in range(24)]
    asked = [ask(prompt, f"p{n}", max_tokens=1 + n % 11) for n, prompt in enumerate(prompts)]
    answers = await asyncio.gather(*(ids_of(engine, request) for request in asked))
    assert answers == [naive.greedy(prompt, 1 + n % 11) for n, prompt in enumerate(prompts)]


async def test_a_beam_answers_whole_in_one_output_and_can_be_left(started: Callable[..., Any]) -> None:
    engine = await started(beam_size=4)
    outputs = await outputs_of(engine, ask())
    assert [len(output.token_ids) for output in outputs] == [12]
    assert outputs[0].finish_reason is FinishReason.LENGTH
    assert EngineFeature.LOGPROBS not in engine.info.features
    left = engine.generate(ask(max_tokens=60))
    waiting = asyncio.ensure_future(anext(left))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await left.aclose()
    assert engine.stats().num_requests_running == 0


async def test_a_prompt_the_model_cannot_read_is_refused_and_named(started: Callable[..., Any]) -> None:
    engine = await started()
    for prompt in ((), (96,), (-1, 5)):
        with pytest.raises(EngineError, match="from 0 to 95"):
            await ids_of(engine, ask(prompt))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (EngineSettings(engine_args={"beams": 4}), "it knows compute_type, lanes, batch_size"),
        (EngineSettings(engine_args={"beam_size": 0}), "beam_size must be in"),
        (EngineSettings(engine_args={"compute_type": "int3"}), "compute_type 'int3' is not possible"),
        (EngineSettings(device="NPU"), "CPU and CUDA"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_at_once(
    files: ModelFiles, settings: EngineSettings, told: str
) -> None:
    with pytest.raises(SpecError, match=told):
        Seq2SeqEngine(files, settings)


class _Fussy:
    """A translator that fails on every batch which holds a certain token."""

    def __init__(self, translator: Any, poison: str) -> None:
        self._translator = translator
        self._poison = poison

    def translate_batch(self, sources: list[list[str]], **options: Any) -> Any:
        if any(self._poison in source for source in sources):
            raise RuntimeError("the library is not amused")
        return self._translator.translate_batch(sources, **options)


class _Gated:
    """A translator whose batches begin when the gate opens."""

    def __init__(self, translator: Any) -> None:
        self._translator = translator
        self.gate = threading.Event()
        self.sizes: list[int] = []

    def translate_batch(self, sources: list[list[str]], **options: Any) -> Any:
        self.gate.wait(10)
        self.sizes.append(len(sources))
        return self._translator.translate_batch(sources, **options)


@pytest.fixture
def translator(files: ModelFiles, tmp_path: Path) -> Any:
    importlib.import_module("argosy.engines.seq2seq.conversion").write_ctranslate2(files, tmp_path, "float32")
    return ctranslate2.Translator(str(tmp_path), compute_type="float32", intra_threads=1, inter_threads=2)


async def test_d31_a_row_the_library_fails_on_fails_alone(translator: Any) -> None:
    gated = _Gated(_Fussy(translator, "66"))
    lanes = Lanes(gated, LaneSettings(count=1, batch_size=8))
    rows = [Row(ask((n, 66, 1) if n == 22 else (n, 1), str(n)), 1) for n in range(20, 25)]
    for row in rows:
        lanes.submit(row)
    gated.gate.set()
    outcomes = await asyncio.gather(*(_answer(row) for row in rows), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [list, list, EngineError, list, list]
    assert "not amused" in str(outcomes[2])
    await lanes.close()


async def test_what_waits_while_a_lane_is_busy_is_one_batch(translator: Any) -> None:
    gated = _Gated(translator)
    lanes = Lanes(gated, LaneSettings(count=1, batch_size=3))
    rows = [Row(ask((n, 1), str(n)), 1) for n in range(20, 25)]
    lanes.submit(rows[0])
    while lanes.num_waiting:  # noqa: ASYNC110  # a thread takes it; there is no event for it
        await asyncio.sleep(0)
    for row in rows[1:]:
        lanes.submit(row)
    await lanes.withdraw(rows[1])
    assert rows[1].ending is FinishReason.ABORT
    gated.gate.set()
    answers = await asyncio.gather(*(_answer(row) for row in rows if row is not rows[1]))
    assert [len(answer) for answer in answers] == [12] * 4
    assert sum(gated.sizes) == 4
    assert max(gated.sizes) <= 3
    await lanes.close()


async def test_a_row_does_not_stand_behind_a_long_one(translator: Any) -> None:
    lanes = Lanes(translator, LaneSettings(count=1, batch_size=8))
    long = Row(ask(max_tokens=3000), 1)
    lanes.submit(long)
    while not long.num_tokens:  # noqa: ASYNC110  # a thread feeds it; there is no event for it
        await asyncio.sleep(0)
    short = Row(ask((20, 1), max_tokens=2), 1)
    lanes.submit(short)
    assert len(await _answer(short)) == 2
    assert long.ending is None
    await lanes.withdraw(long)
    await lanes.close()


async def _answer(row: Row) -> list[int]:
    ids: list[int] = []
    while True:
        output = await row.take()
        ids += output.token_ids
        if output.finish_reason is not None:
            return ids
