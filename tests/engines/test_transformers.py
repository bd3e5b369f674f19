"""The reference engine on a tiny random Llama: it must equal the naive loop, and leave no trace of who else ran."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from argosy.core.engine import EngineSettings
from argosy.core.errors import EngineDead, EngineError, SpecError
from argosy.core.generation import FinishReason, GenerateOutput, GenerateRequest
from argosy.core.model import ModelFiles
from argosy.core.sampling import SamplingParams

torch = pytest.importorskip("torch", reason="needs the extra [transformers]")
transformers = pytest.importorskip("transformers", reason="needs the extra [transformers]")

sys.path.insert(0, str(Path(__file__).parent))
from tiny_llama import MAX_MODEL_LEN, write_tiny_llama  # noqa: E402

from argosy.engines.transformers import TransformersEngine  # noqa: E402

PROMPT = (1, 17, 33, 5, 60, 9, 41)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return write_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
async def engine(files: ModelFiles) -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(files, EngineSettings(max_num_seqs=4))
    await engine.start()
    yield engine
    await engine.close()


def request(name: str = "a", prompt: tuple[int, ...] = PROMPT, **sampling: object) -> GenerateRequest:
    params = SamplingParams(**{"max_tokens": 12, "temperature": 0.0, **sampling})  # type: ignore[arg-type]
    return GenerateRequest(request_id=name, prompt_token_ids=prompt, sampling=params)


async def outputs(engine: TransformersEngine, wanted: GenerateRequest) -> list[GenerateOutput]:
    async with aclosing(engine.generate(wanted)) as stream:
        return [output async for output in stream]


async def ids(engine: TransformersEngine, wanted: GenerateRequest) -> list[int]:
    return [token_id for output in await outputs(engine, wanted) for token_id in output.token_ids]


def naive_greedy(files: ModelFiles, prompt: tuple[int, ...], num_tokens: int) -> list[int]:
    """The whole sequence through the model for every token: no cache, no chunks."""
    model = transformers.AutoModelForCausalLM.from_pretrained(files.root)
    sequence = list(prompt)
    with torch.inference_mode():
        for _ in range(num_tokens):
            sequence.append(int(model(torch.tensor([sequence])).logits[0, -1].argmax()))
    return sequence[len(prompt) :]


@pytest.mark.anyio
@pytest.mark.parametrize("prefill_tokens", [1, 3, 7, 512])
async def test_equals_the_naive_loop_however_the_prompt_is_cut(files: ModelFiles, prefill_tokens: int) -> None:
    engine = TransformersEngine(files, EngineSettings(max_num_batched_tokens=prefill_tokens))
    await engine.start()
    assert await ids(engine, request()) == naive_greedy(files, PROMPT, 12)
    await engine.close()


@pytest.mark.anyio
async def test_same_seed_same_ids_alone_and_in_a_crowd(engine: TransformersEngine) -> None:
    alone = await ids(engine, request(temperature=1.0, seed=5))
    crowd = [request(f"r{i}", PROMPT[: i + 1], temperature=1.0, seed=i) for i in range(7)]
    together = await asyncio.gather(
        ids(engine, request("same", temperature=1.0, seed=5)), *(ids(engine, each) for each in crowd)
    )
    assert together[0] == alone
    assert len({tuple(answer) for answer in together}) > 1


@pytest.mark.anyio
async def test_ends_at_a_stop_token_and_names_it(engine: TransformersEngine) -> None:
    whole = await ids(engine, request())
    stop = whole[4]
    got = await outputs(engine, request(stop_token_ids=(stop,)))
    assert [output.token_ids[0] for output in got] == whole[: whole.index(stop) + 1]
    assert (got[-1].finish_reason, got[-1].stop_token_id) == (FinishReason.STOP, stop)
    assert all(output.finish_reason is None for output in got[:-1])


@pytest.mark.anyio
async def test_ends_at_max_tokens_and_at_the_context(engine: TransformersEngine) -> None:
    assert len(await outputs(engine, request(max_tokens=3))) == 3
    long = request(prompt=(1,) * (MAX_MODEL_LEN - 4), max_tokens=100)
    got = await outputs(engine, long)
    assert len(got) == 4
    assert got[-1].finish_reason is FinishReason.LENGTH


@pytest.mark.anyio
async def test_closing_leaves_within_a_step_and_late_joiners_run_beside(engine: TransformersEngine) -> None:
    long = engine.generate(request("long", max_tokens=200))
    await anext(long)
    assert engine.stats().num_requests_running == 1
    assert engine.stats().kv_cache_usage_ratio > 0
    assert len(await ids(engine, request("late", max_tokens=3))) == 3  # while `long` is still open
    await long.aclose()
    assert engine.stats().num_requests_running == 0
    assert engine.stats().kv_cache_usage_ratio == 0


@pytest.mark.anyio
async def test_more_than_max_num_seqs_wait_and_all_end(engine: TransformersEngine) -> None:
    streams = [engine.generate(request(f"r{i}", max_tokens=50)) for i in range(4)]
    for stream in streams:
        await anext(stream)
    async with asyncio.TaskGroup() as tasks:
        fifth = tasks.create_task(ids(engine, request("fifth")))
        await asyncio.sleep(0)
        assert engine.stats().num_requests_waiting == 1
        for stream in streams:
            await stream.aclose()
    assert len(fifth.result()) == 12
    assert engine.stats().num_requests_waiting == 0


@pytest.mark.anyio
async def test_logprobs_are_the_models_own(engine: TransformersEngine, files: ModelFiles) -> None:
    first = (await outputs(engine, request(logprobs=3)))[0].logprobs[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(files.root)
    with torch.inference_mode():
        expected = model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    top = torch.topk(expected, 3)
    assert [token_id for token_id, _ in first.top] == top.indices.tolist()
    assert [value for _, value in first.top] == pytest.approx(top.values.tolist(), abs=1e-5)
    assert first.logprob == first.top[0][1]


@pytest.mark.anyio
async def test_embedding_is_the_mean_hidden_state_of_unit_length(engine: TransformersEngine, files: ModelFiles) -> None:
    vectors = await engine.embed([PROMPT, PROMPT[:2]])
    model = transformers.AutoModelForCausalLM.from_pretrained(files.root)
    with torch.inference_mode():
        mean = model.model(torch.tensor([PROMPT])).last_hidden_state[0].mean(0)
    assert vectors[0] == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
    assert sum(value * value for value in vectors[1]) == pytest.approx(1.0)


@pytest.mark.anyio
async def test_close_ends_what_runs_and_is_idempotent(files: ModelFiles) -> None:
    engine = TransformersEngine(files, EngineSettings())
    with pytest.raises(EngineDead):
        await engine.check_health()
    await engine.start()
    await engine.check_health()
    stream = engine.generate(request(max_tokens=200))
    await anext(stream)
    await engine.close()
    await engine.close()
    with pytest.raises(EngineDead):
        await anext(stream)
    with pytest.raises(EngineDead):
        await engine.check_health()
    assert engine.stats().num_requests_running == 0


@pytest.mark.anyio
async def test_an_impossible_request_fails_alone(engine: TransformersEngine) -> None:
    with pytest.raises(EngineError):
        await ids(engine, request(prompt=(1, 9999)))
    assert len(await ids(engine, request())) == 12


@pytest.mark.parametrize("arguments", [{"dtype": "int3"}, {"tensor_parallel_size": 2}])
def test_engine_args_it_does_not_know_are_refused(files: ModelFiles, arguments: dict[str, str | int]) -> None:
    with pytest.raises(SpecError, match="it knows dtype"):
        TransformersEngine(files, EngineSettings(engine_args=arguments))


def test_a_kv_cache_too_small_for_one_request_is_refused(files: ModelFiles) -> None:
    with pytest.raises(SpecError, match="raise kv_cache_bytes or lower max_model_len"):
        TransformersEngine(files, EngineSettings(kv_cache_bytes=1000))


def test_d04_weights_that_would_be_unpickled_are_refused(files: ModelFiles) -> None:
    pickled = msgspec.structs.replace(files, weights=(files.root / "pytorch_model.bin",))
    with pytest.raises(SpecError, match="never unpickles"):
        TransformersEngine(pickled, EngineSettings())


@pytest.mark.anyio
async def test_d11_code_in_the_models_folder_is_not_run(files: ModelFiles, tmp_path: Path) -> None:
    trap = tmp_path / "was_run"
    folder = tmp_path / "model"
    strange = write_tiny_llama(folder)
    (folder / "modeling_trap.py").write_text(f"open({str(trap)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "trap"
    config["auto_map"] = {"AutoConfig": "modeling_trap.Config", "AutoModelForCausalLM": "modeling_trap.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    engine = TransformersEngine(strange, EngineSettings())
    with pytest.raises(SpecError, match="cannot load file:tiny-llama"):
        await engine.start()
    await engine.close()
    assert not trap.exists()
