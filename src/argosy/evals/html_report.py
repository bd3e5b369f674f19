"""A result as one HTML page: no script, no font, no address outside itself; light and dark."""

from __future__ import annotations

import html
import platform
from collections.abc import Callable
from itertools import pairwise

import msgspec

from argosy.evals.html_page import page_of, table_of
from argosy.evals.loadtest import BenchResult, LoadResult
from argosy.evals.metrics import Distribution, Summary, timeline
from argosy.evals.plots import Axis, Series, cumulative, line_plot
from argosy.evals.spec import OpenLoad
from argosy.evals.tables import fact_table, latency_table, sweep_table


def html_page(result: BenchResult, *, measured_at: str) -> str:
    """The whole page. measured_at: when, as a reader wants it."""
    summaries = [one.summary for one in result.results]
    spec = msgspec.json.format(msgspec.json.encode(result.spec, enc_hook=str), indent=2).decode()
    cut = " · stopped by the user" if result.is_interrupted else ""
    about = (
        f"{result.spec.url} · {measured_at} · client on {platform.machine()}, Python {platform.python_version()}{cut}"
    )
    parts: list[str] = []
    if len(summaries) > 1:
        parts += ["<h2>Loads</h2>", table_of(sweep_table(summaries)), *_sweep_plots(result)]
    for one in result.results:
        parts += _load_section(one)
    parts += ["<h2>What was asked</h2>", f"<pre>{html.escape(spec)}</pre>"]
    parts.append(
        "<p class=dim>Latencies count from the intended send time, so waiting behind a slow server is in them. "
        "TTFT: first text. TPOT: mean of each further token. ITL: gaps between streamed pieces. Throughput counts "
        "the tokens that arrived in the measured window.</p>"
    )
    return page_of(f"{result.model}: load test", about, parts)


def _load_section(one: LoadResult) -> list[str]:
    done = [record for record in one.records if record.error is None]
    warnings = "".join(f"<li>{html.escape(text)}</li>" for text in one.summary.warnings)
    points = timeline(one.records)
    first = [record.ttft_seconds * 1000 for record in done if record.ttft_seconds is not None]
    gaps = [(b - a) * 1000 for record in done for a, b in pairwise(record.chunk_times)]
    whole = [record.e2e_seconds for record in done]
    share = Axis(label="% of the sample", end=100.0)
    seconds = Axis(label="seconds from the start")
    return [
        f"<h2>{html.escape(one.summary.label)}</h2>",
        f"<ul class=warn>{warnings}</ul>" if warnings else "",
        table_of(latency_table(one.summary)),
        "<div class=plots>",
        line_plot(
            "Time to first token", Axis(label="ms", is_log=True), share, [Series(name="TTFT", points=cumulative(first))]
        ),
        line_plot(
            "Gaps between pieces", Axis(label="ms", is_log=True), share, [Series(name="ITL", points=cumulative(gaps))]
        ),
        line_plot(
            "Requests running",
            seconds,
            Axis(label="requests"),
            [Series(name="running", points=[(point.at_seconds, point.running) for point in points])],
        ),
        line_plot(
            "Throughput",
            seconds,
            Axis(label="output tokens per second"),
            [Series(name="tokens/s", points=[(point.at_seconds, point.output_tokens_per_second) for point in points])],
        ),
        line_plot("End to end", Axis(label="seconds"), share, [Series(name="E2E", points=cumulative(whole))]),
        line_plot(
            "Time to first token over the run",
            seconds,
            Axis(label="ms"),
            [
                Series(
                    name="TTFT",
                    points=[(r.intended_at, r.ttft_seconds * 1000) for r in done if r.ttft_seconds is not None],
                )
            ],
        ),
        "</div>",
        table_of(fact_table(one.summary)),
    ]


def _sweep_plots(result: BenchResult) -> list[str]:
    is_open = all(isinstance(one.load, OpenLoad) for one in result.results)
    x = Axis(label="requests per second offered" if is_open else "clients")

    def curve(name: str, value: Callable[[Summary], float | None]) -> Series:
        found = [(load_size(one), y) for one in result.results if (y := value(one.summary)) is not None]
        return Series(name=name, points=found)

    first = [
        curve("p50", lambda summary: _ms(summary.ttft, "p50")),
        curve("p95", lambda summary: _ms(summary.ttft, "p95")),
    ]
    each = [
        curve("p50", lambda summary: _ms(summary.tpot, "p50")),
        curve("p95", lambda summary: _ms(summary.tpot, "p95")),
    ]
    plots = [
        line_plot(
            "Throughput",
            x,
            Axis(label="output tokens per second"),
            [curve("tokens/s", lambda s: s.output_tokens_per_second)],
            is_marked=True,
        ),
        line_plot("Time to first token", x, Axis(label="ms"), first, is_marked=True),
        line_plot("Time per output token", x, Axis(label="ms"), each, is_marked=True),
    ]
    if result.spec.goodput:
        good = curve("good", lambda summary: None if summary.goodput_ratio is None else summary.goodput_ratio * 100)
        plots.append(line_plot("Requests within the limits", x, Axis(label="%", end=100.0), [good], is_marked=True))
    return ["<div class=plots>", *plots, "</div>"]


def _ms(found: Distribution | None, share: str) -> float | None:
    return None if found is None else float(getattr(found, share)) * 1000


def load_size(one: LoadResult) -> float:
    """Where a load stands on the axis of a sweep."""
    if isinstance(one.load, OpenLoad):
        return one.load.rate
    return float(getattr(one.load, "concurrency", 0))
