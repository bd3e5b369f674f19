from __future__ import annotations

from pathlib import Path

import pytest

from argosy.core.errors import SpecError
from argosy.evals.arrivals import gap_variation, mean_rate
from argosy.evals.traces import ideal_block_hit_ratio, read_trace, trace_slice

DATA = Path(__file__).parent / "data"
WHOLE = Path(__file__).parents[3] / "shared" / "traces"
needs_whole = pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole traces are not beside this checkout")


def test_azure_sample() -> None:
    trace = read_trace(DATA / "azure_sample.csv")
    assert len(trace) == 40
    assert (trace[0].at_seconds, trace[0].prompt_tokens, trace[0].output_tokens) == (0.0, 374, 44)
    assert trace[1].at_seconds == pytest.approx(4.314579, abs=1e-5)
    assert trace[1].blocks == ()


def test_mooncake_sample_is_read_through_gzip() -> None:
    trace = read_trace(DATA / "mooncake_sample.jsonl.gz")
    assert len(trace) == 40
    assert (trace[0].prompt_tokens, trace[0].output_tokens, trace[0].blocks) == (6758, 500, tuple(range(14)))
    assert 0 < ideal_block_hit_ratio(trace) < 1


@needs_whole
def test_azure_facts() -> None:
    times = [request.at_seconds for request in read_trace(WHOLE / "azure_llm_2023_conversation.csv")]
    assert mean_rate(times) == pytest.approx(5.53, abs=0.005)
    assert gap_variation(times) == pytest.approx(1.09, abs=0.005)


@needs_whole
def test_mooncake_facts() -> None:
    trace = read_trace(WHOLE / "mooncake_conversation.jsonl.gz")
    assert len(trace) == 12_031
    assert ideal_block_hit_ratio(trace) == pytest.approx(0.366, abs=0.0005)


def test_slice_counts_from_its_start_and_runs_at_speed() -> None:
    trace = read_trace(DATA / "azure_sample.csv")
    part = trace_slice(trace, start_seconds=4.0, duration_seconds=2.0, speed=2.0)
    inside = [request for request in trace if 4.0 <= request.at_seconds < 6.0]
    assert [request.at_seconds for request in part] == [(request.at_seconds - 4.0) / 2 for request in inside]
    assert 0 < len(part) < len(trace)
    assert trace_slice(trace, start_seconds=0, duration_seconds=None, speed=1.0) == trace


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "first line"),
        (b"TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no request"),
        (b"TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", ":2: cannot read"),
        (b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,1\n", ":2: cannot read"),
        (b'{"timestamp": 1}\n', ":1: not a Mooncake request"),
        (b'{"timestamp": 1, "input_length": "x", "output_length": 2}\n', "input_length"),
        (b"\x1f\x8bnot really", "cannot read trace"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=told):
        read_trace(path)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(SpecError, match="cannot read trace"):
        read_trace(Path("/nowhere/trace.csv"))
