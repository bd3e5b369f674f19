"""Top log probabilities: what is read when, whether the numbers are right, and that nobody else notices."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy
import pytest

pytest.importorskip("openvino_genai")

from argosy.core.engine import EngineSettings
from argosy.core.generation import GenerateRequest, TokenLogprob
from argosy.core.model import ModelFiles
from argosy.core.sampling import SamplingParams
from argosy.engines.openvino.engine import OpenVinoEngine
from argosy.engines.openvino.messages import Gain
from argosy.engines.openvino.scorer import (
    GATHERED_TOKENS,
    MAX_GATHERED_TOKENS,
    PROMPT_CHUNK_TOKENS,
    Chunk,
    Scorer,
    Transcript,
    log_probabilities,
)

# "Monday, Tuesday … Friday," and "Once upon a time" in SmolLM2's ids.
DAYS = (32210, 28, 14801, 28, 15083, 28, 14963, 28, 11655, 28)
STORY = (6403, 1980, 253, 655)


def rows(chunk: Chunk) -> numpy.ndarray:
    return numpy.zeros((chunk.num_rows, 10), dtype=numpy.float32)


def test_a_prompt_is_read_in_chunks_up_to_its_last_token() -> None:
    transcript = Transcript(range(PROMPT_CHUNK_TOKENS + 3), num_top=1)
    chunks = []
    while transcript.is_ripe:
        chunks.append(transcript.next_chunk())
        assert transcript.on_read(chunks[-1], rows(chunks[-1])) is None
    assert [len(chunk.token_ids) for chunk in chunks] == [PROMPT_CHUNK_TOKENS, 2]


def test_the_first_token_is_scored_at_once_and_later_ones_are_gathered() -> None:
    transcript = Transcript([1], num_top=1)
    transcript.append(Gain(7, [2]))
    chunk = transcript.next_chunk()
    assert chunk == Chunk((1,), 0, 1)
    gain = transcript.on_read(chunk, rows(chunk))
    assert gain is not None
    assert gain.token_ids == [2]
    for token_id in range(3, 3 + GATHERED_TOKENS):
        assert not transcript.is_ripe
        transcript.append(Gain(7, [token_id]))
    assert transcript.next_chunk() == Chunk((2, *range(3, 2 + GATHERED_TOKENS)), 1, GATHERED_TOKENS)


def test_an_ending_is_handed_on_with_the_last_token_and_not_before() -> None:
    transcript = Transcript([1], num_top=1)
    transcript.append(Gain(7, [2] * (MAX_GATHERED_TOKENS + 1), None, "length"))
    gains = []
    while transcript.is_ripe:
        chunk = transcript.next_chunk()
        gains.append(transcript.on_read(chunk, rows(chunk)))
    assert [gain and (len(gain.token_ids), gain.ending) for gain in gains] == [
        (MAX_GATHERED_TOKENS, None),
        (1, "length"),
    ]
    assert transcript.is_over


def test_an_ending_without_tokens_needs_no_reading() -> None:
    scorer = Scorer(lambda: None)
    scorer.open(7, [1], 1)
    assert scorer.take(Gain(7, [], None, "error", "too large"))
    assert [(gain.number, gain.ending, gain.error) for gain in scorer.work()] == [(7, "error", "too large")]
    assert not scorer.has_work


def test_log_probabilities_are_those_of_softmax() -> None:
    logits = numpy.log(numpy.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]], dtype=numpy.float32)) + 5
    values, top = log_probabilities(logits, [2, 1], 2)
    assert values == pytest.approx([math.log(0.3), math.log(0.2)], abs=1e-5)
    assert [[token_id for token_id, _ in likeliest] for likeliest in top] == [[1, 2], [0, 2]]
    assert top[0][1][1] == values[0]


def test_a_model_that_does_not_compile_fails_only_who_asked() -> None:
    def compile_model() -> None:
        raise RuntimeError("no such file")

    scorer = Scorer(compile_model)
    scorer.open(7, [1], 1)
    while scorer.is_waiting:
        pass
    (gain,) = scorer.work()
    assert (gain.number, gain.ending) == (7, "error")
    assert "no such file" in str(gain.error)
    assert not scorer.take(Gain(8, [1]))


@pytest.fixture(scope="module")
async def engine(smollm2_files: ModelFiles, smollm2_cache: Path) -> AsyncIterator[OpenVinoEngine]:
    engine = OpenVinoEngine(smollm2_files, EngineSettings(max_num_seqs=8, cache_dir=smollm2_cache))
    await engine.start()
    yield engine
    await engine.close()


def ask(prompt: tuple[int, ...], **sampling: object) -> GenerateRequest:
    params = SamplingParams(**({"max_tokens": 24, "temperature": 0.0} | sampling))  # type: ignore[arg-type]
    return GenerateRequest(request_id="r", prompt_token_ids=prompt, sampling=params)


async def logprobs_of(engine: OpenVinoEngine, request: GenerateRequest) -> list[TokenLogprob]:
    async with aclosing(engine.generate(request)) as stream:
        return [logprob async for output in stream for logprob in output.logprobs]


@pytest.mark.anyio
@pytest.mark.parametrize("prompt", [DAYS, STORY, DAYS * 40])
async def test_the_second_reading_agrees_with_the_pipeline(engine: OpenVinoEngine, prompt: tuple[int, ...]) -> None:
    await logprobs_of(engine, ask(prompt, logprobs=0))  # a cached prompt differs from a cold one in its last digits
    alone = await logprobs_of(engine, ask(prompt, logprobs=0))
    scored = await logprobs_of(engine, ask(prompt, logprobs=5))
    assert [logprob.token_id for logprob in scored] == [logprob.token_id for logprob in alone]
    differences = [abs(ours.logprob - theirs.logprob) for ours, theirs in zip(scored, alone, strict=True)]
    assert sum(differences) / len(differences) < 0.1
    for logprob in scored:
        values = [value for _, value in logprob.top]
        assert len(values) == 5
        assert values == sorted(values, reverse=True)
        assert logprob.logprob <= values[0]
        assert dict(logprob.top).get(logprob.token_id, logprob.logprob) == logprob.logprob


@pytest.mark.anyio
async def test_more_requests_than_readings_are_all_scored(engine: OpenVinoEngine) -> None:
    answers = await asyncio.gather(*(logprobs_of(engine, ask(DAYS, logprobs=2)) for _ in range(8)))
    assert [len(answer) for answer in answers] == [24] * 8
    assert all(len(logprob.top) == 2 for answer in answers for logprob in answer)


@pytest.mark.anyio
async def test_f06_an_aborted_scored_request_gives_its_reading_back(engine: OpenVinoEngine) -> None:
    for _ in range(6):
        stream = engine.generate(ask(STORY, logprobs=3, max_tokens=500))
        await anext(stream)
        await stream.aclose()
    assert len(await logprobs_of(engine, ask(STORY, logprobs=3))) == 24
    assert engine.stats().num_requests_running + engine.stats().num_requests_waiting == 0
