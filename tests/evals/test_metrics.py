from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.evals.metrics import (
    Window,
    distribution,
    is_good,
    percentile,
    pile_up,
    summarise,
    timeline,
    tokens_in_window,
)
from argosy.evals.probe import ProbeReport
from argosy.evals.records import RequestRecord


def answered(
    index: int, *, at: float, first: float, gap: float, tokens: int, delay: float = 0.0, chunks: int | None = None
) -> RequestRecord:
    """A request intended at `at`, sent `delay` later, first text at `first`, then one piece every `gap`."""
    times = [first + gap * number for number in range(chunks or tokens)]
    return RequestRecord(
        index=index,
        intended_at=at,
        sent_at=at + delay,
        ended_at=times[-1],
        chunk_times=times,
        prompt_tokens=10,
        completion_tokens=tokens,
        finish_reason="length",
        status=200,
    )


def test_latencies_count_from_the_intended_send_time() -> None:
    late = answered(0, at=1.0, first=4.0, gap=0.5, tokens=5, delay=2.0)
    assert late.ttft_seconds == 3.0
    assert late.tpot_seconds == 0.5
    assert late.e2e_seconds == 5.0


def test_tpot_counts_tokens_not_pieces() -> None:
    record = answered(0, at=0.0, first=1.0, gap=1.0, tokens=9, chunks=3)
    assert record.tpot_seconds == pytest.approx(2.0 / 8)
    assert answered(0, at=0, first=1, gap=1, tokens=1).tpot_seconds is None


def test_percentiles_of_a_known_sample() -> None:
    found = distribution([float(value) for value in range(101)])
    assert found is not None
    assert (found.min, found.p50, found.p90, found.p99, found.max, found.mean) == (0, 50, 90, 99, 100, 50)
    assert percentile([1.0, 2.0], 0.5) == 1.5
    assert distribution([]) is None


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_lies_within_the_sample(values: list[float], ratio: float) -> None:
    ordered = sorted(values)
    assert ordered[0] <= percentile(ordered, ratio) <= ordered[-1]


def test_throughput_counts_what_arrived_inside_the_window() -> None:
    record = answered(0, at=0.0, first=1.0, gap=1.0, tokens=20, chunks=10)  # pieces at 1 … 10, two tokens each
    assert tokens_in_window(record, Window(start=0.0, end=5.5)) == 10
    assert tokens_in_window(record, Window(start=5.5, end=100.0)) == 10
    summary = summarise("x", [record], Window(start=0.0, end=5.5))
    assert summary.output_tokens_per_second == pytest.approx(10 / 5.5)
    assert summary.request_rate == 0, "it ended after the window"
    assert summary.tokens_per_chunk == 2.0


def test_goodput_needs_every_limit_and_success() -> None:
    limits = {"ttft": 1.0, "tpot": 0.1}
    good = answered(0, at=0, first=1.0, gap=0.1, tokens=3)
    slow_start = answered(1, at=0, first=1.1, gap=0.1, tokens=3)
    slow_after = answered(2, at=0, first=1.0, gap=0.2, tokens=3)
    lost = RequestRecord(index=3, intended_at=0, ended_at=0.1, error="http_429", error_detail="full")
    assert [is_good(one, limits) for one in (good, slow_start, slow_after, lost)] == [True, False, False, False]
    summary = summarise("x", [good, slow_start, slow_after, lost], Window(start=0, end=2), goodput=limits)
    assert (summary.goodput_ratio, summary.goodput_rate) == (0.25, 0.5)


def test_errors_are_counted_by_kind_and_cut_requests_are_not_errors() -> None:
    records = [
        answered(0, at=0, first=1, gap=1, tokens=2),
        RequestRecord(index=1, intended_at=0, ended_at=1, error="http_429", error_detail="queue full"),
        RequestRecord(index=2, intended_at=0, ended_at=1, error="http_429"),
        RequestRecord(index=3, intended_at=0, ended_at=1, error="truncated"),
        RequestRecord(index=4, intended_at=0, ended_at=1, error="interrupted"),
    ]
    summary = summarise("x", records, Window(start=0, end=2))
    assert summary.errors == {"http_429": 2, "truncated": 1}
    assert (summary.requests_completed, summary.requests_failed, summary.requests_interrupted) == (1, 3, 1)
    assert summary.error_example == "queue full"
    assert "3 requests failed" in summary.warnings[0]


def test_nothing_measured_is_a_summary_too() -> None:
    summary = summarise("x", [], Window(start=0, end=0))
    assert (summary.requests_sent, summary.ttft, summary.output_tokens_per_second) == (0, None, 0)


def test_a_heavy_or_late_client_and_a_stolen_machine_are_told() -> None:
    probe = ProbeReport(
        client_cpu_ratio=0.2, client_cpu_seconds=1, lag_p50_seconds=0.001, lag_p99_seconds=0.02, steal_ratio=0.1
    )
    told = " ".join(summarise("x", [], Window(start=0, end=1), probe=probe).warnings)
    assert "20.0% of the machine" in told
    assert "20.0 ms late" in told
    assert "stole 10.0%" in told


def test_a_server_without_usage_is_told() -> None:
    record = answered(0, at=0, first=1, gap=1, tokens=4)
    record.completion_tokens = None
    summary = summarise("x", [record], Window(start=0, end=5))
    assert (summary.output_tokens, summary.is_counted_by_usage) == (4, False)
    assert "no usage" in summary.warnings[0]


def test_requests_piling_up_in_an_open_loop_are_told() -> None:
    # Ten arrive per second, one per second is served: a thousandth of the way to a queue without end.
    records = [answered(number, at=number / 10, first=number + 1.0, gap=0.0, tokens=1) for number in range(100)]
    window = Window(start=0, end=10)
    growth = pile_up(records, window)
    assert growth is not None
    assert growth[1] > 2 * growth[0]
    assert any("piled up" in text for text in summarise("x", records, window, offered_rate=10).warnings)
    steady = [answered(n, at=n / 10, first=n / 10 + 0.5, gap=0, tokens=1) for n in range(100)]
    assert pile_up(steady, window) is None


def test_timeline_shows_running_requests_tokens_and_ends() -> None:
    records = [
        answered(0, at=0.0, first=0.25, gap=1.0, tokens=10),
        answered(1, at=5.0, first=5.25, gap=1.0, tokens=5, chunks=5),
    ]
    points = timeline(records, buckets=10)
    width = records[0].ended_at / 10
    assert [point.running for point in points] == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert sum(point.output_tokens_per_second * width for point in points) == pytest.approx(15)
    assert sum(point.completed for point in points) == 2
    assert timeline([]) == []
