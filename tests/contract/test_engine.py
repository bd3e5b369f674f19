"""The laws of the Engine socket, the same for every engine. Slow ones run where their library is installed."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from argosy.core.engine import EngineFeature, EngineSettings
from argosy.core.errors import EngineDead, EngineError, InvalidRequest
from argosy.core.generation import FinishReason, GenerateOutput, GenerateRequest
from argosy.core.interfaces import Engine
from argosy.core.model import ModelFiles, ModelFormat
from argosy.core.plugins import resolve
from argosy.core.sampling import SamplingParams
from argosy.engines import ENGINES

# engine -> the module it needs, and the format of weights it reads.
NEEDS = {
    "echo": None,
    "openvino": "openvino_genai",
    "seq2seq": "ctranslate2",
    "transformers": "transformers",
    "vllm": "vllm",
}
# "Count: 1, 2, 3 … 12," and "Monday … Friday," in SmolLM2's ids: answers a model is sure of, so that the rounding
# of a larger batch cannot turn a near tie.
PROMPT = (
    9825,
    42,
    216,
    33,
    28,
    216,
    34,
    28,
    216,
    35,
    28,
    216,
    36,
    28,
    216,
    37,
    28,
    216,
    38,
    28,
    216,
    39,
    28,
    216,
    40,
    28,
    216,
    41,
    28,
    216,
    33,
    32,
    28,
    216,
    33,
    33,
    28,
    216,
    33,
    34,
    28,
)
OTHER_PROMPT = (32210, 28, 14801, 28, 15083, 28, 14963, 28, 11655, 28)

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning:(torch|vllm).*")]


@pytest.fixture(scope="module", params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    needed = NEEDS.get(name, name)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    return name


@pytest.fixture(scope="module")
def files(engine_name: str, smollm2_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """The default model, for vllm de-quantised; two engines get a tiny one of theirs with as large a vocabulary."""
    if engine_name == "transformers":
        sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
        write_tiny_llama = importlib.import_module("tiny_llama").write_tiny_llama
        info = smollm2_files.info
        return write_tiny_llama(tmp_path_factory.mktemp("tiny"), info.vocab_size, info.max_model_len)
    if engine_name == "seq2seq":
        sys.path.insert(0, str(Path(__file__).parents[1] / "engines" / "seq2seq"))
        write_tiny_t5 = importlib.import_module("tiny_t5").write_tiny_t5
        info = smollm2_files.info
        tiny: ModelFiles = write_tiny_t5(
            tmp_path_factory.mktemp("tiny"), vocab_size=info.vocab_size, max_model_len=info.max_model_len
        )
        return tiny
    if engine_name != "vllm":
        return smollm2_files
    if not (importlib.util.find_spec("gguf") and importlib.util.find_spec("accelerate")):
        pytest.skip("vllm reads no GGUF, and what turns it into safetensors (gguf, accelerate) is not installed")
    root = tmp_path_factory.mktemp("safetensors") / "model"
    importlib.import_module("argosy.engines.dequantise").dequantise(smollm2_files.weights[0], root)
    weights = tuple(sorted(root.glob("*.safetensors")))
    return msgspec.structs.replace(smollm2_files, root=root, format=ModelFormat.SAFETENSORS, weights=weights)


def build(engine_name: str, files: ModelFiles, cache_dir: Path) -> Engine:
    # vLLM on a CPU would take half of the memory for its cache.
    cache_bytes = 2**29 if engine_name == "vllm" else None
    # Random weights rounded to int8 hold near ties, which larger batches may turn; those of float32 do not.
    arguments: dict[str, str | int | float | bool] = {"compute_type": "float32"} if engine_name == "seq2seq" else {}
    settings = EngineSettings(max_num_seqs=8, kv_cache_bytes=cache_bytes, cache_dir=cache_dir, engine_args=arguments)
    engine: Engine = resolve(ENGINES, engine_name, "engine")(files, settings)
    return engine


@pytest.fixture(scope="module")
async def engine(engine_name: str, files: ModelFiles, smollm2_cache: Path) -> AsyncIterator[Engine]:
    engine = build(engine_name, files, smollm2_cache)
    await engine.start()
    yield engine
    await engine.close()


def ask(name: str = "r", prompt: tuple[int, ...] = PROMPT, **sampling: object) -> GenerateRequest:
    params = SamplingParams(**({"max_tokens": 12, "temperature": 0.0} | sampling))  # type: ignore[arg-type]
    return GenerateRequest(request_id=name, prompt_token_ids=prompt, sampling=params)


async def outputs_of(engine: Engine, request: GenerateRequest) -> list[GenerateOutput]:
    async with aclosing(engine.generate(request)) as stream:
        return [output async for output in stream]


async def ids_of(engine: Engine, request: GenerateRequest) -> list[int]:
    return [token_id for output in await outputs_of(engine, request) for token_id in output.token_ids]


async def drain(stream: AsyncGenerator[GenerateOutput]) -> None:
    async for _ in stream:
        pass


def require(engine: Engine, *features: EngineFeature) -> None:
    missing = [feature.value for feature in features if feature not in engine.info.features]
    if missing:
        pytest.skip(f"{engine.info.name} does not claim {', '.join(missing)}")


async def test_info_is_complete_once_started(engine: Engine, engine_name: str) -> None:
    info = engine.info
    assert info.name == engine_name
    assert info.version
    assert info.max_model_len > 0
    assert info.max_num_seqs == 8
    assert info.features


async def test_the_answer_has_exactly_max_tokens(engine: Engine) -> None:
    assert len(await ids_of(engine, ask(max_tokens=7))) == 7


async def test_one_token_is_an_answer(engine: Engine) -> None:
    outputs = await outputs_of(engine, ask(max_tokens=1))
    assert [len(output.token_ids) for output in outputs] == [1]
    assert outputs[-1].finish_reason is FinishReason.LENGTH


async def test_only_the_last_output_carries_a_finish_reason(engine: Engine) -> None:
    outputs = await outputs_of(engine, ask())
    assert [output.finish_reason for output in outputs[:-1]] == [None] * (len(outputs) - 1)
    assert outputs[-1].finish_reason is FinishReason.LENGTH
    assert outputs[-1].stop_token_id is None


async def test_ids_lie_in_the_vocabulary(engine: Engine, files: ModelFiles) -> None:
    assert all(0 <= token_id < files.info.vocab_size for token_id in await ids_of(engine, ask()))


async def test_greedy_repeats_itself(engine: Engine) -> None:
    assert await ids_of(engine, ask()) == await ids_of(engine, ask())


async def test_a_stop_token_ends_the_answer_and_is_its_last_token(engine: Engine) -> None:
    require(engine, EngineFeature.STOP_TOKEN_IDS)
    free = await ids_of(engine, ask())
    stop = free[5]
    outputs = await outputs_of(engine, ask(stop_token_ids=(stop,)))
    ids = [token_id for output in outputs for token_id in output.token_ids]
    assert ids == free[: free.index(stop) + 1]
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert outputs[-1].stop_token_id == stop


async def test_without_stop_tokens_nothing_but_max_tokens_ends_the_answer(engine: Engine) -> None:
    require(engine, EngineFeature.IGNORE_EOS)
    assert len(await ids_of(engine, ask(max_tokens=150, ignore_eos=True))) == 150


async def test_min_tokens_outlasts_a_stop_token(engine: Engine) -> None:
    require(engine, EngineFeature.MIN_TOKENS)
    stop = (await ids_of(engine, ask()))[2]
    ids = await ids_of(engine, ask(stop_token_ids=(stop,), min_tokens=8))
    assert len(ids) >= 8


async def test_the_same_seed_gives_the_same_ids(engine: Engine) -> None:
    require(engine, EngineFeature.SEED)
    request = ask(temperature=1.0, seed=11)
    assert await ids_of(engine, request) == await ids_of(engine, request)


async def test_a_seed_holds_beside_other_requests(engine: Engine) -> None:
    require(engine, EngineFeature.SEED)
    request = ask("seeded", temperature=0.3, seed=11)
    alone = await ids_of(engine, request)
    others = [ask(f"o{n}", OTHER_PROMPT, temperature=1.0, seed=n, max_tokens=20) for n in range(3)]
    together = await asyncio.gather(*(ids_of(engine, other) for other in (*others, request)))
    assert together[-1] == alone


async def test_requests_without_a_seed_differ(engine: Engine) -> None:
    if engine.info.name == "echo":
        pytest.skip("echo always answers the same")
    answers = [tuple(await ids_of(engine, ask(temperature=2.0))) for _ in range(4)]
    assert len(set(answers)) > 1


async def test_greedy_ids_do_not_depend_on_batch_mates(engine: Engine) -> None:
    alone = await ids_of(engine, ask())
    together = await asyncio.gather(
        ids_of(engine, ask("a")), *(ids_of(engine, ask(f"b{n}", OTHER_PROMPT, max_tokens=9)) for n in range(3))
    )
    assert together[0] == alone
    assert [len(ids) for ids in together[1:]] == [9, 9, 9]


async def test_more_requests_than_fit_all_end(engine: Engine) -> None:
    answers = await asyncio.gather(*(ids_of(engine, ask(f"m{n}")) for n in range(20)))
    assert answers == [answers[0]] * 20


async def test_a_late_joiner_does_not_wait_for_the_running(engine: Engine) -> None:
    async with aclosing(engine.generate(ask("long", max_tokens=400, ignore_eos=True))) as running:
        await anext(running)
        assert len(await ids_of(engine, ask("late", max_tokens=3))) == 3
        assert engine.stats().num_requests_running == 1


async def test_logprobs_are_as_many_as_tokens_and_not_positive(engine: Engine) -> None:
    require(engine, EngineFeature.LOGPROBS)
    outputs = await outputs_of(engine, ask(logprobs=0))
    for output in outputs:
        assert [logprob.token_id for logprob in output.logprobs] == list(output.token_ids)
        assert all(logprob.logprob <= 0 for logprob in output.logprobs)


async def test_unasked_logprobs_are_absent(engine: Engine) -> None:
    assert all(output.logprobs == () for output in await outputs_of(engine, ask()))


async def test_top_logprobs_hold_the_chosen_token_when_greedy(engine: Engine) -> None:
    require(engine, EngineFeature.TOP_LOGPROBS)
    for output in await outputs_of(engine, ask(logprobs=1, max_tokens=4)):
        assert [logprob.top[0][0] for logprob in output.logprobs] == list(output.token_ids)


async def test_stats_are_zero_when_idle(engine: Engine) -> None:
    await ids_of(engine, ask())
    stats = engine.stats()
    assert (stats.num_requests_running, stats.num_requests_waiting) == (0, 0)
    assert stats.kv_cache_usage_ratio == 0


async def test_stats_count_the_running_and_are_never_negative(engine: Engine) -> None:
    streams = [engine.generate(ask(f"s{n}", max_tokens=300, ignore_eos=True)) for n in range(3)]
    for stream in streams:
        await anext(stream)
        stats = engine.stats()
        assert min(stats.num_requests_running, stats.num_requests_waiting) >= 0
        assert 0 <= stats.kv_cache_usage_ratio <= 1
    assert engine.stats().num_requests_running + engine.stats().num_requests_waiting == 3
    for stream in streams:
        await stream.aclose()


async def test_closing_the_stream_frees_the_request_before_it_returns(engine: Engine) -> None:
    stream = engine.generate(ask(max_tokens=2000, ignore_eos=True))
    await anext(stream)
    await stream.aclose()
    stats = engine.stats()
    assert (stats.num_requests_running, stats.num_requests_waiting) == (0, 0)
    assert stats.kv_cache_usage_ratio == 0


async def test_a_stream_closed_before_its_first_step_leaves_nothing(engine: Engine) -> None:
    await engine.generate(ask(max_tokens=2000)).aclose()
    assert engine.stats().num_requests_running + engine.stats().num_requests_waiting == 0


async def test_cancelling_the_reader_frees_the_request(engine: Engine) -> None:
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(ids_of(engine, ask(max_tokens=2000, ignore_eos=True)))
        while engine.stats().num_requests_running == 0:  # noqa: ASYNC110  # the socket has no event for it
            await asyncio.sleep(0)
        reader.cancel()
    assert engine.stats().num_requests_running + engine.stats().num_requests_waiting == 0


async def test_f06_an_abort_leaves_batch_mates_alone(engine: Engine) -> None:
    alone = await ids_of(engine, ask())
    doomed = [engine.generate(ask(f"d{n}", OTHER_PROMPT, max_tokens=500, ignore_eos=True)) for n in range(3)]
    for stream in doomed:
        await anext(stream)
    async with aclosing(engine.generate(ask("survivor"))) as survivor:
        first = await anext(survivor)
        for stream in doomed:
            await stream.aclose()
        rest = [token_id async for output in survivor for token_id in output.token_ids]
    assert [*first.token_ids, *rest] == alone


async def test_d31_a_request_that_fails_fails_alone(engine: Engine, files: ModelFiles) -> None:
    if engine.info.name == "echo":
        pytest.skip("echo answers any ids")
    alone = await ids_of(engine, ask())
    bad = ask("bad", (files.info.vocab_size + 7,))
    good, failed = await asyncio.gather(ids_of(engine, ask("good")), ids_of(engine, bad), return_exceptions=True)
    assert good == alone
    assert isinstance(failed, EngineError | InvalidRequest)
    assert not isinstance(failed, EngineDead)


async def test_health_holds_while_running(engine: Engine) -> None:
    await engine.check_health()
    async with aclosing(engine.generate(ask(max_tokens=50, ignore_eos=True))) as stream:
        await anext(stream)
        await engine.check_health()


async def test_close_is_idempotent_and_ends_what_runs(engine_name: str, files: ModelFiles, smollm2_cache: Path) -> None:
    engine = build(engine_name, files, smollm2_cache)
    await engine.start()
    stream = engine.generate(ask(max_tokens=2000, ignore_eos=True))
    await anext(stream)
    await engine.close()
    await engine.close()
    with pytest.raises(EngineError):
        await drain(stream)
    with pytest.raises(EngineDead):
        await engine.check_health()
    with pytest.raises(EngineDead):
        await ids_of(engine, ask())
    assert engine.stats().num_requests_running == 0
