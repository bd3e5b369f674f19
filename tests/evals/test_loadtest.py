"""A whole benchmark against a scripted loopback server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.core.errors import InvalidRequest
from argosy.evals.command import LoadFlags, loads_of, report_of, spec_of, write_files
from argosy.evals.loadtest import BenchFailed, BenchResult, Progress, run_bench
from argosy.evals.spec import (
    ApiEndpoint,
    BenchSpec,
    ClosedLoad,
    OpenLoad,
    PromptSpec,
    TraceLoad,
    parse_goodput,
    parse_numbers,
)
from argosy.evals.tables import milliseconds, result_tables

pytestmark = pytest.mark.anyio
DATA = Path(__file__).parent / "data"


def respond(status: int, body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (status, kind, len(body), body)


def word_server(head: bytes, body: bytes) -> list[bytes]:
    """Counts one token a word and five for the template; answers `max_tokens` pieces."""
    if head.startswith(b"GET"):
        return [respond(200, b'{"data":[{"id":"small"},{"id":"other"}]}')]
    asked = msgspec.json.decode(body)
    text = asked["messages"][0]["content"] if "messages" in asked else asked["prompt"]
    usage = {"prompt_tokens": len(text.split()) + 5, "completion_tokens": asked["max_tokens"]}
    piece = b'data: {"choices":[{"delta":{"content":"x"},"text":"x"}]}\n\n'
    end = b"data: " + msgspec.json.encode({"choices": [], "usage": usage}) + b"\n\ndata: [DONE]\n\n"
    return [respond(200, piece * asked["max_tokens"] + end, b"text/event-stream")]


def spec(url: str, **fields: Any) -> BenchSpec:
    return BenchSpec(url=url, **{"num_requests": 6, "max_tokens": 4, "loads": (ClosedLoad(concurrency=2),), **fields})


async def test_a_closed_loop_from_end_to_end(server) -> None:
    server.script = word_server
    seen: list[Progress] = []
    result = await run_bench(spec(server.url, goodput={"ttft": 10.0}), on_progress=seen.append)
    summary = result.results[0].summary
    assert (result.model, summary.requests_completed, summary.requests_failed) == ("small", 6, 0)
    assert (summary.output_tokens, summary.is_counted_by_usage, summary.goodput_ratio) == (24, True, 1.0)
    assert summary.prompt_length is not None
    assert (summary.prompt_length.min, summary.prompt_length.max) == (32, 32), "calibrated over the template"
    assert {one.phase for one in seen} == {"warming up", "measuring"}
    bodies = [msgspec.json.decode(body) for head, body in server.requests if head.startswith(b"POST")]
    assert len(bodies) == 2 + 2 + 6, "two to calibrate, two to warm up, six measured"
    assert len({body["messages"][0]["content"] for body in bodies}) == len(bodies), "no two prompts are equal"
    assert all(body["ignore_eos"] and body["stream_options"] == {"include_usage": True} for body in bodies)


async def test_a_sweep_of_rates_on_the_completions_endpoint(server) -> None:
    server.script = word_server
    loads = (OpenLoad(rate=200.0), OpenLoad(rate=400.0))
    result = await run_bench(
        spec(
            server.url, loads=loads, endpoint=ApiEndpoint.COMPLETIONS, ignore_eos=False, model="mine", warmup_requests=0
        )
    )
    assert [one.summary.requests_completed for one in result.results] == [6, 6]
    head, body = server.requests[-1]
    assert head.startswith(b"POST /v1/completions")
    asked = msgspec.json.decode(body)
    assert (asked["model"], "ignore_eos" in asked, "messages" in asked) == ("mine", False, False)
    assert [table.title for table in result_tables(result)] == ["Loads"]


async def test_a_trace_is_replayed_with_its_lengths(server) -> None:
    server.script = word_server
    load = TraceLoad(path=DATA / "mooncake_sample.jsonl.gz", speed=1e4, token_scale=0.01, max_prompt_tokens=60)
    result = await run_bench(spec(server.url, loads=(load,), num_requests=None, max_tokens=3, warmup_requests=0))
    summary = result.results[0].summary
    assert (summary.requests_completed, summary.requests_sent) == (40, 40)
    assert summary.prompt_length is not None
    assert summary.prompt_length.max == 60
    assert summary.output_length is not None
    assert summary.output_length.max == 3


async def test_prompts_of_a_file_are_asked_in_turn(server, tmp_path: Path) -> None:
    server.script = word_server
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt":"one"}\n{"messages":[{"role":"user","content":"two"}],"max_tokens":1}\n')
    await run_bench(
        spec(server.url, prompts=PromptSpec(file=path), loads=(ClosedLoad(concurrency=1),), warmup_requests=0)
    )
    asked = [msgspec.json.decode(body) for _, body in server.requests[-6:]]
    assert [(one["messages"][0]["content"], one["max_tokens"]) for one in asked] == [("one", 4), ("two", 1)] * 3


async def test_failures_in_the_run_are_counted_by_kind(server) -> None:
    asked = 0

    def script(head: bytes, body: bytes) -> list[bytes]:
        nonlocal asked
        asked += head.startswith(b"POST")
        if asked > 4 and asked % 2:
            return [respond(429, b'{"error":{"message":"the queue is full"}}')]
        return word_server(head, body)

    server.script = script
    summary = (await run_bench(spec(server.url))).results[0].summary
    assert summary.errors == {"http_429": 3}
    assert summary.error_example == "the queue is full"


@pytest.mark.parametrize(
    ("status", "message", "error", "told"),
    [
        (400, "unknown field ignore_eos", InvalidRequest, "--no-ignore-eos"),
        (401, "no key", InvalidRequest, "--api-key-file"),
        (404, "no model is called x", InvalidRequest, "check --model"),
        (500, "broken", BenchFailed, "broken"),
    ],
)
async def test_a_server_that_refuses_is_told_with_a_remedy(
    server, status: int, message: str, error: type[Exception], told: str
) -> None:
    server.script = lambda head, body: [respond(status, msgspec.json.encode({"error": {"message": message}}))]
    with pytest.raises(error, match=told):
        await run_bench(spec(server.url, model="x"))


async def test_nobody_there_is_told_with_a_remedy() -> None:
    with pytest.raises(BenchFailed, match="argosy serve"):
        await run_bench(spec("http://127.0.0.1:1"))


async def test_an_interrupt_reports_what_was_measured(server) -> None:
    server.script = word_server
    interrupted = asyncio.Event()

    def stop(now: Progress) -> None:
        if now.load_index == 1:
            interrupted.set()

    loads = (ClosedLoad(concurrency=1), ClosedLoad(concurrency=2), ClosedLoad(concurrency=3))
    result = await run_bench(spec(server.url, loads=loads), interrupted=interrupted, on_progress=stop)
    assert result.is_interrupted
    assert len(result.results) == 2
    assert result.results[0].summary.requests_completed == 6


async def one_result(server: Any) -> BenchResult:
    server.script = word_server
    return await run_bench(
        spec(server.url, loads=(ClosedLoad(concurrency=1), ClosedLoad(concurrency=3)), api_key="s3cret")
    )


async def test_files_hold_the_figures_and_no_key(server, tmp_path: Path) -> None:
    result = await one_result(server)
    written = write_files(result, tmp_path / "out")
    assert [path.name for path in written] == ["report.json", "requests.jsonl", "report.html"]
    texts = [path.read_text() for path in written]
    assert not any("s3cret" in text for text in texts)
    assert len(texts[1].splitlines()) == 12
    assert msgspec.json.decode(texts[0])["loads"][0]["requests_completed"] == 6
    assert report_of(result).model == "small"


async def test_the_page_is_whole_and_asks_nobody(server, tmp_path: Path) -> None:
    result = await one_result(server)
    page = write_files(result, tmp_path)[2].read_text().replace(result.spec.url, "")
    assert page.count("<svg") == page.count("</svg>") >= 12
    for forbidden in ("http://", "https://", "<script", "@import", "url(", "src="):
        assert forbidden not in page
    assert "prefers-color-scheme:dark" in page


def test_flags_become_loads() -> None:
    assert loads_of(LoadFlags()) == (ClosedLoad(concurrency=8),)
    assert loads_of(LoadFlags(concurrency="1,8")) == (ClosedLoad(concurrency=1), ClosedLoad(concurrency=8))
    assert loads_of(LoadFlags(rate="0.5", burstiness=2)) == (OpenLoad(rate=0.5, burstiness=2),)
    assert loads_of(LoadFlags(trace=Path("t"), speed=2)) == (TraceLoad(path=Path("t"), speed=2),)


@pytest.mark.parametrize(
    ("load", "fields", "told"),
    [
        ({"concurrency": "1", "rate": "2"}, {}, "exclude each other"),
        ({"concurrency": "1.5"}, {}, "not whole"),
        ({"concurrency": "many"}, {}, "not understood"),
        ({"rate": "0"}, {}, "not understood"),
        ({"rate": "1", "burstiness": 0.0}, {}, "burstiness is 0"),
        ({"trace": Path("t"), "speed": -1.0}, {}, "speed is -1"),
        ({}, {"max_tokens": 0}, "max_tokens is 0"),
        ({}, {"endpoint": "talk"}, "talk"),
        ({}, {"prompts": {"tokens": 5, "shared_prefix_tokens": 6}}, "shared_prefix_tokens is 6"),
        ({}, {"duration_seconds": 0.0}, "duration is 0"),
        ({}, {"nonsense": 1}, "nonsense"),
    ],
)
def test_wrong_flags_are_refused_by_name(load: dict[str, object], fields: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        spec_of(load, fields)


def test_goodput_limits() -> None:
    assert parse_goodput("ttft:1s, tpot:100ms,e2e:2.5s") == {"ttft": 1.0, "tpot": 0.1, "e2e": 2.5}
    assert parse_goodput("") == {}
    for wrong in ("ttft", "ttft:1", "speed:1s", "ttft:1h"):
        with pytest.raises(InvalidRequest, match="not understood"):
            parse_goodput(wrong)
    assert parse_numbers("1,2.5", "rate") == [1.0, 2.5]


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.00012, "0.12 ms"), (0.0123, "12.3 ms"), (1.5, "1500 ms"), (12.34, "12.3 s")]
)
def test_durations_are_told_with_three_figures(seconds: float | None, text: str) -> None:
    assert milliseconds(seconds) == text
