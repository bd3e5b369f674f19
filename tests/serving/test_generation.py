"""What a served model answers, and that it always gives back what it took."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec
import pytest

from argosy.core.adapter import Adapter
from argosy.core.errors import ArgosyError, DeadlineExceeded, EngineDead, Overloaded
from argosy.core.sampling import SamplingOverrides, TextParams
from argosy.engines.echo import EchoEngine
from argosy.observe.metrics import Metrics
from argosy.serving.admission_policy import AdmissionLimits
from argosy.serving.delta import Delta
from argosy.serving.options import ChatPrompt, GenerateOptions, PreparedRequest
from argosy.serving.served_model import ServedModel

pytestmark = pytest.mark.anyio
Serve = Callable[..., tuple[ServedModel, EchoEngine]]


def options(
    request_id: str = "r",
    *,
    text: TextParams | None = None,
    n: int = 1,
    deadline_seconds: float | None = None,
    **sampling: object,
) -> GenerateOptions:
    return GenerateOptions(
        request_id=request_id,
        sampling=SamplingOverrides(**{"max_tokens": 6, **sampling}),  # type: ignore[arg-type]
        text=text or TextParams(),
        n=n,
        deadline_seconds=deadline_seconds,
    )


async def answer(served: ServedModel, prepared: PreparedRequest) -> list[Delta]:
    async with served.generate(prepared) as generation:
        return [delta async for delta in generation]


async def completion(served: ServedModel, prompt: str, asked: GenerateOptions) -> list[Delta]:
    return await answer(served, await served.prepare_completion(prompt, asked))


def is_idle(engine: EchoEngine, served: ServedModel) -> bool:
    stats = served.stats()
    return (stats.num_requests_running, stats.num_requests_waiting, engine.stats().num_requests_running) == (0, 0, 0)


async def test_an_answer_comes_token_by_token_and_says_why_it_ended(serve_echo: Serve) -> None:
    served, engine = serve_echo()
    prepared = await served.prepare_completion("abc", options(max_tokens=4))
    async with served.generate(prepared) as generation:
        deltas = [delta async for delta in generation]
        assert generation.usage.prompt_tokens == 3
        assert generation.usage.completion_tokens == 4
    assert [delta.text for delta in deltas] == ["a", "b", "c", "a"]
    assert [delta.finish_reason for delta in deltas] == [None, None, None, "length"]
    assert is_idle(engine, served)


async def test_a_chat_is_rendered_and_its_end_token_is_counted_but_not_shown(serve_echo: Serve) -> None:
    served, _ = serve_echo()
    prompt = ChatPrompt(messages=({"role": "user", "content": "hi"},))
    prepared = await served.prepare_chat(prompt, options(max_tokens=50))
    deltas = await answer(served, prepared)
    assert "".join(delta.text for delta in deltas) == "user:hi"
    assert (deltas[-1].finish_reason, deltas[-1].stop_reason, deltas[-1].token_ids) == ("stop", None, (257,))


async def test_a_stop_string_ends_the_answer_and_closes_the_engine_stream_before_its_last_delta(
    serve_echo: Serve,
) -> None:
    served, engine = serve_echo()
    prepared = await served.prepare_completion("abcdef", options(max_tokens=100, text=TextParams(stop=("de",))))
    async with served.generate(prepared) as generation:
        deltas = []
        async for delta in generation:
            deltas.append(delta)
            if delta.finish_reason:
                assert engine.stats().num_requests_running == 0
    assert "".join(delta.text for delta in deltas) == "abc"
    assert (deltas[-1].finish_reason, deltas[-1].stop_reason) == ("stop", "de")


async def test_a_stop_string_within_min_tokens_passes(serve_echo: Serve) -> None:
    served, _ = serve_echo()
    deltas = await completion(served, "abcdef", options(max_tokens=100, min_tokens=6, text=TextParams(stop=("de",))))
    assert "".join(delta.text for delta in deltas) == "abcdefabc"


async def test_a_scrape_tells_whose_adapters_run_and_wait(serve_echo: Serve, metrics: Metrics) -> None:
    served, _ = serve_echo(AdmissionLimits(max_running=1))
    for name in ("fr", "it"):
        served.add_adapter(Adapter(name=name, path=Path(name), base="letters"))
    prepared = await served.prepare_completion("ab", options())

    def asking(adapter: str) -> PreparedRequest:
        return msgspec.structs.replace(prepared, options=msgspec.structs.replace(prepared.options, adapter=adapter))

    async with served.generate(asking("fr")):
        waiting = asyncio.create_task(answer(served, asking("it")))
        await asyncio.sleep(0)
        assert 'lora_requests_info{max_lora="2",running_lora_adapters="fr",waiting_lora_adapters="it"}' in scrape(
            metrics
        )
    await waiting
    assert 'lora_requests_info{max_lora="2",running_lora_adapters="",waiting_lora_adapters=""}' in scrape(metrics)


def scrape(metrics: Metrics) -> str:
    return metrics.expose().decode()


async def test_several_answers_are_merged_and_each_ends_once(serve_echo: Serve) -> None:
    served, engine = serve_echo()
    deltas = await completion(served, "xy", options(n=3, max_tokens=4, temperature=1.0))
    for choice in range(3):
        mine = [delta for delta in deltas if delta.choice == choice]
        assert "".join(delta.text for delta in mine) == "xyxy"
        assert [delta.finish_reason for delta in mine].count("length") == 1
    assert is_idle(engine, served)


async def test_log_probabilities_come_with_text_and_bytes(serve_echo: Serve) -> None:
    served, _ = serve_echo()
    deltas = await completion(served, "é", options(max_tokens=2, logprobs=1))
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert b"".join(entry.bytes_ for entry in entries) == "é".encode()
    assert "".join(delta.text for delta in deltas) == "é"
    assert [entry.top[0].token_id for entry in entries] == [entry.token_id for entry in entries]


@pytest.mark.parametrize("n", [1, 2])
async def test_f06_leaving_midway_frees_the_engine_and_the_permit_before_it_returns(
    serve_echo: Serve, metrics: Metrics, n: int
) -> None:
    served, engine = serve_echo()
    prepared = await served.prepare_completion("abc", options(max_tokens=400, n=n, temperature=1.0))
    async with served.generate(prepared) as generation:
        async for _ in generation:
            assert engine.stats().num_requests_running == n
            break
    assert is_idle(engine, served)
    assert f'finished_reason="abort",model_name="letters"}} {n}.0' in metrics.expose().decode()


@pytest.mark.parametrize("n", [1, 3])
async def test_f06_a_cancelled_task_frees_the_engine_and_the_permit(serve_echo: Serve, n: int) -> None:
    served, engine = serve_echo()
    prepared = await served.prepare_completion("abc", options(max_tokens=400, n=n, temperature=1.0))
    started = asyncio.Event()

    async def read() -> None:
        async with served.generate(prepared) as generation:
            async for _ in generation:
                started.set()

    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert is_idle(engine, served)


async def test_f07_a_full_queue_refuses_before_anything_is_sent(serve_echo: Serve) -> None:
    limits = AdmissionLimits(max_running=1, max_waiting=0)
    served, engine = serve_echo(limits)
    prepared = await served.prepare_completion("abc", options())
    async with served.generate(prepared):
        with pytest.raises(Overloaded, match="the server is busy") as refused:
            await answer(served, prepared)
    assert refused.value.retry_after_seconds >= 1
    assert is_idle(engine, served)


async def test_who_waits_runs_when_a_permit_comes_back(serve_echo: Serve) -> None:
    served, engine = serve_echo(AdmissionLimits(max_running=1))
    prepared = await served.prepare_completion("abc", options(max_tokens=2))
    answers = await asyncio.gather(*(answer(served, prepared) for _ in range(5)))
    assert ["".join(delta.text for delta in each) for each in answers] == ["ab"] * 5
    assert is_idle(engine, served)


async def test_f07_who_waits_too_long_is_told_to_come_back(serve_echo: Serve) -> None:
    served, engine = serve_echo(AdmissionLimits(max_running=1, max_queue_seconds=0.0))
    prepared = await served.prepare_completion("abc", options())
    async with served.generate(prepared):
        with pytest.raises(Overloaded, match="no slot became free"):
            await answer(served, prepared)
    assert is_idle(engine, served)


async def test_a_deadline_that_passes_in_the_queue_ends_the_wait(serve_echo: Serve) -> None:
    served, engine = serve_echo(AdmissionLimits(max_running=1))
    prepared = await served.prepare_completion("abc", options())
    hurried = await served.prepare_completion("abc", options(deadline_seconds=0.0))
    async with served.generate(prepared):
        with pytest.raises(DeadlineExceeded, match=r"waited 0\.0 s"):
            await answer(served, hurried)
    assert is_idle(engine, served)


@pytest.mark.parametrize("n", [1, 2])
async def test_a_deadline_that_passes_midway_raises_and_frees_the_engine(serve_echo: Serve, n: int) -> None:
    served, engine = serve_echo()
    prepared = await served.prepare_completion(
        "abc", options(max_tokens=500, n=n, temperature=1.0, deadline_seconds=0.002)
    )
    with pytest.raises(DeadlineExceeded, match=r"not finished within 0\.002 s"):
        await answer(served, prepared)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert is_idle(engine, served)


async def test_f11_a_clock_that_jumps_expires_nothing_and_gives_no_negative_time(
    serve_echo: Serve, clock: Callable[[], float], metrics: Metrics
) -> None:
    served, engine = serve_echo()
    prepared = await served.prepare_completion("abc", options(max_tokens=4, deadline_seconds=60.0))
    async with served.generate(prepared) as generation:
        deltas = [delta async for delta in generation]
    assert len(deltas) == 4
    assert generation.timings.total_seconds == 0.0
    assert is_idle(engine, served)


async def test_f01_everything_can_be_ended_at_once_with_one_error(serve_echo: Serve) -> None:
    served, engine = serve_echo(AdmissionLimits(max_running=2))
    prepared = await served.prepare_completion("abc", options(max_tokens=500))
    readers = [asyncio.create_task(answer(served, prepared)) for _ in range(6)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert served.stats().num_requests_waiting == 4
    served.abort_all(EngineDead("the server is stopping"))
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(result) for result in results] == [EngineDead] * 6
    assert is_idle(engine, served)


async def test_f06_two_hundred_mixed_requests_a_third_cut_off_leave_nothing_running(
    serve_echo: Serve, metrics: Metrics
) -> None:
    served, engine = serve_echo(max_num_seqs=8)
    random = Random(1)

    async def one(number: int) -> None:
        asked = options(
            f"r{number}",
            max_tokens=random.randint(1, 60),
            n=random.choice((1, 1, 1, 2)),
            temperature=1.0,
            text=TextParams(stop=random.choice(((), ("ca",)))),
        )
        prepared = await served.prepare_completion("abc" * random.randint(1, 20), asked)
        cut_after = random.randint(0, 10) if number % 3 == 0 else None
        async with served.generate(prepared) as generation:
            seen = 0
            async for _ in generation:
                seen += 1
                if cut_after is not None and seen > cut_after:
                    break

    async with asyncio.timeout(60):
        await asyncio.gather(*(one(number) for number in range(200)))
    assert is_idle(engine, served)
    shown = metrics.expose().decode()
    assert 'vllm:num_requests_running{engine="0",model_name="letters"} 0.0' in shown


async def test_a_dead_engine_raises_and_gives_the_permit_back(serve_echo: Serve) -> None:
    served, engine = serve_echo(AdmissionLimits(max_running=1))
    await engine.close()
    prepared = await served.prepare_completion("abc", options())
    for _ in range(2):
        with pytest.raises(ArgosyError):
            await answer(served, prepared)
    assert is_idle(engine, served)


async def test_iterating_without_entering_is_a_programming_error(serve_echo: Serve) -> None:
    served, _ = serve_echo()
    generation = served.generate(await served.prepare_completion("abc", options()))
    with pytest.raises(RuntimeError, match="async with"):
        aiter(generation)
