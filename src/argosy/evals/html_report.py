"""A result as one HTML page: no script, no font, no address outside itself; light and dark."""

from __future__ import annotations

import html
import platform
from collections.abc import Callable
from itertools import pairwise

import msgspec

from argosy.evals.loadtest import BenchResult, LoadResult
from argosy.evals.metrics import Distribution, Summary, timeline
from argosy.evals.plots import Axis, Series, cumulative, line_plot
from argosy.evals.spec import OpenLoad
from argosy.evals.tables import TextTable, fact_table, latency_table, sweep_table

_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2330;--dim:#66707f;--edge:#d8dde5;--card:#f6f8fa;--warn:#9a5b00;
--s0:#1f6fd1;--s1:#d1571f;--s2:#1f8f5f;--s3:#9445c4;--s4:#b8860b;--s5:#c2387a}
@media (prefers-color-scheme:dark){:root{--bg:#12161d;--fg:#e4e9f0;--dim:#95a0b0;--edge:#303845;--card:#1a2029;
--warn:#f0b35a;--s0:#6ea8fe;--s1:#ff9562;--s2:#5fd0a0;--s3:#c79bf0;--s4:#e3c14f;--s5:#ff86b7}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:1.5rem;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}p.dim,small{color:var(--dim)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem .3rem 0;text-align:right;border-bottom:1px solid var(--edge);white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{color:var(--dim);font-weight:600}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:1rem}
figure{margin:0;padding:.8rem;background:var(--card);border:1px solid var(--edge);border-radius:8px}
figcaption{font-weight:600;margin-bottom:.3rem}svg{width:100%;height:auto;display:block}
.line{fill:none;stroke-width:2}.grid{stroke:var(--edge)}.tick{fill:var(--dim);font-size:11px}.name{fill:var(--fg);font-size:12px}
.line.c0{stroke:var(--s0)}.line.c1{stroke:var(--s1)}.line.c2{stroke:var(--s2)}.line.c3{stroke:var(--s3)}
.line.c4{stroke:var(--s4)}.line.c5{stroke:var(--s5)}.dot.c0{fill:var(--s0)}.dot.c1{fill:var(--s1)}.dot.c2{fill:var(--s2)}
.dot.c3{fill:var(--s3)}.dot.c4{fill:var(--s4)}.dot.c5{fill:var(--s5)}
.key{margin-right:1rem;font-size:12px}.key::before{content:"";display:inline-block;width:.8em;height:.8em;margin-right:.35em;
border-radius:2px;background:var(--k)}.key.c0{--k:var(--s0)}.key.c1{--k:var(--s1)}.key.c2{--k:var(--s2)}
.key.c3{--k:var(--s3)}.key.c4{--k:var(--s4)}.key.c5{--k:var(--s5)}
ul.warn{color:var(--warn)}pre{background:var(--card);padding:.8rem;overflow-x:auto;border-radius:8px}
"""


def html_page(result: BenchResult, *, measured_at: str) -> str:
    """The whole page. measured_at: when, as a reader wants it."""
    summaries = [one.summary for one in result.results]
    spec = msgspec.json.format(msgspec.json.encode(result.spec, enc_hook=str), indent=2).decode()
    cut = " · stopped by the user" if result.is_interrupted else ""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f"<title>{html.escape(result.model)}: load test</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(result.model)}</h1>",
        f"<p class=dim>{html.escape(result.spec.url)} · {html.escape(measured_at)} · client on "
        f"{html.escape(platform.machine())}, Python {platform.python_version()}{cut}</p>",
    ]
    if len(summaries) > 1:
        parts += ["<h2>Loads</h2>", _table(sweep_table(summaries)), *_sweep_plots(result)]
    for one in result.results:
        parts += _load_section(one)
    parts += ["<h2>What was asked</h2>", f"<pre>{html.escape(spec)}</pre>"]
    parts.append(
        "<p class=dim>Latencies count from the intended send time, so waiting behind a slow server is in them. "
        "TTFT: first text. TPOT: mean of each further token. ITL: gaps between streamed pieces. Throughput counts "
        "the tokens that arrived in the measured window.</p></body></html>\n"
    )
    return "\n".join(parts)


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
        _table(latency_table(one.summary)),
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
        _table(fact_table(one.summary)),
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


def _table(table: TextTable) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
