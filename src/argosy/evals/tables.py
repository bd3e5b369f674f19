"""A result as tables of text: the same cells for a terminal, a pipe and the HTML report."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.evals.loadtest import BenchResult
from argosy.evals.metrics import Distribution, Summary

_NONE = "–"


class TextTable(msgspec.Struct, frozen=True, kw_only=True):
    """A titled table. The first column is text, the others are numbers and stand to the right."""

    title: str
    header: list[str]
    rows: list[list[str]]


def milliseconds(seconds: float | None) -> str:
    """A duration for a reader: three figures, in ms up to ten seconds, in s above."""
    if seconds is None:
        return _NONE
    if abs(seconds) >= 10:
        return f"{seconds:.1f} s"
    scaled = seconds * 1000
    return f"{scaled:.0f} ms" if abs(scaled) >= 100 else f"{scaled:.1f} ms" if abs(scaled) >= 1 else f"{scaled:.2f} ms"


def result_tables(result: BenchResult) -> list[TextTable]:
    """What the terminal shows: latencies and facts of one load, or one row per load of a sweep."""
    summaries = [one.summary for one in result.results]
    if len(summaries) == 1:
        return [latency_table(summaries[0]), fact_table(summaries[0])]
    return [sweep_table(summaries)] if summaries else []


def sweep_table(summaries: Sequence[Summary]) -> TextTable:
    """One row per load."""
    header = ["load", "out tok/s", "req/s", "TTFT p50", "TTFT p95", "TTFT p99", "TPOT p50", "TPOT p95", "ITL p99"]
    header += ["E2E p50", "E2E p95", "failed"]
    has_goodput = any(summary.goodput_ratio is not None for summary in summaries)
    rows = []
    for summary in summaries:
        cells = [summary.label, f"{summary.output_tokens_per_second:.1f}", f"{summary.request_rate:.2f}"]
        cells += [_at(summary.ttft, "p50"), _at(summary.ttft, "p95"), _at(summary.ttft, "p99")]
        cells += [_at(summary.tpot, "p50"), _at(summary.tpot, "p95"), _at(summary.itl, "p99")]
        cells += [_at(summary.e2e, "p50"), _at(summary.e2e, "p95"), str(summary.requests_failed)]
        if has_goodput:
            cells.append(_NONE if summary.goodput_ratio is None else f"{summary.goodput_ratio:.1%}")
        rows.append(cells)
    return TextTable(title="Loads", header=header + (["good"] if has_goodput else []), rows=rows)


def latency_table(summary: Summary) -> TextTable:
    """The latency distributions of one load, from the intended send time."""
    names: list[tuple[str, Distribution | None]] = [
        ("time to first token (TTFT)", summary.ttft),
        ("time per output token (TPOT)", summary.tpot),
        ("inter-token gap (ITL)", summary.itl),
        ("end to end (E2E)", summary.e2e),
    ]
    columns = ["mean", "p50", "p90", "p95", "p99", "max"]
    rows = [[name, *(_at(found, column) for column in columns)] for name, found in names]
    return TextTable(title=f"Latency at {summary.label}", header=["latency", *columns], rows=rows)


def fact_table(summary: Summary) -> TextTable:
    """Everything else that is known of one load, a line each."""
    rows = [
        ["output tokens per second", f"{summary.output_tokens_per_second:.1f}"],
        ["all tokens per second", f"{summary.total_tokens_per_second:.1f}"],
        ["requests per second", f"{summary.request_rate:.2f}"],
        ["measured for", f"{summary.window_seconds:.1f} s"],
        ["requests completed", f"{summary.requests_completed} of {summary.requests_sent}"],
        ["prompt tokens per request", _lengths(summary.prompt_length)],
        ["output tokens per request", _lengths(summary.output_length)],
        ["tokens per streamed piece", f"{summary.tokens_per_chunk:.2f}"],
        ["finish reasons", _counts(summary.finish_reasons)],
    ]
    if summary.offered_rate is not None:
        rows.insert(3, ["requests per second offered", f"{summary.offered_rate:.2f}"])
    if summary.cached_tokens:
        rows.append(["prompt tokens from prefix cache", f"{summary.cached_tokens / max(1, summary.prompt_tokens):.1%}"])
    if summary.goodput_ratio is not None and summary.goodput_rate is not None:
        rows.append(["good requests", f"{summary.goodput_ratio:.1%}, {summary.goodput_rate:.2f} per second"])
    if summary.errors:
        rows.append(["failed", f"{_counts(summary.errors)} ({summary.error_example})"])
    if summary.requests_interrupted:
        rows.append(["cut by the end of the run", str(summary.requests_interrupted)])
    if probe := summary.probe:
        lag = f"loop lag p99 {milliseconds(probe.lag_p99_seconds)}"
        rows.append(["client", f"{probe.client_cpu_ratio:.1%} of the CPUs, {lag}"])
        rows.append(["stolen by the hypervisor", f"{probe.steal_ratio:.1%}"])
        if probe.server_rss_peak_bytes is not None and probe.server_cpu_seconds is not None:
            rows.append(["server memory at most", f"{probe.server_rss_peak_bytes / 2**20:.0f} MiB"])
            rows.append(["server CPU time", f"{probe.server_cpu_seconds:.2f} s"])
    return TextTable(title="Facts", header=["fact", "value"], rows=rows)


def _at(found: Distribution | None, column: str) -> str:
    return milliseconds(None if found is None else getattr(found, column))


def _lengths(found: Distribution | None) -> str:
    if found is None:
        return _NONE
    if found.min == found.max:
        return f"{found.min:.0f}"
    return f"{found.mean:.1f} ({found.min:.0f} to {found.max:.0f})"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or _NONE
