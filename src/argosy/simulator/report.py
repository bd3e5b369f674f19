"""A study as a table and as one HTML page with its plots, offline."""

from __future__ import annotations

import html

import msgspec

from argosy.evals.html_page import page_of, table_of
from argosy.evals.plots import Axis, Series, line_plot
from argosy.evals.tables import TextTable, milliseconds
from argosy.simulator.study import PolicyResult, StudyResult

_PLOTTED = ("argosy", "oracle", "hpa-cpu", "hpa-queue", "kpa", "keda")
_CHANGES_SHOWN = 200


def policy_table(result: StudyResult) -> TextTable:
    """One row per policy."""
    header = ["policy", "attained", "replica-hours", "× oracle", "replicas", "turns/10 min"]
    header += ["TTFT p50", "TTFT p95", "TTFT p99", "TPOT p95", "refused"]
    is_partial = result.possible_ratio < 1.0
    if is_partial:
        header.insert(2, "of the possible")
    has_cache = any(one.cached_token_ratio > 0 for one in result.policies)
    rows = []
    for one in result.policies:
        cells = [one.policy, f"{one.attainment:.2%}", f"{one.replica_hours:.2f}"]
        cells.append(f"{one.over_oracle:.2f}" if one.over_oracle else "–")
        cells.append(f"{one.replicas_least}–{one.replicas_most}")
        cells.append(f"{one.reversals:.1f}")
        cells += [milliseconds(one.ttft_p50_seconds), milliseconds(one.ttft_p95_seconds)]
        cells += [milliseconds(one.ttft_p99_seconds), milliseconds(one.tpot_p95_seconds), str(one.failed)]
        if is_partial:
            cells.insert(2, f"{one.attainment_of_possible:.2%}")
        rows.append([*cells, f"{one.cached_token_ratio:.1%}"] if has_cache else cells)
    return TextTable(title="Policies", header=[*header, "cached"] if has_cache else header, rows=rows)


def traffic_line(result: StudyResult) -> str:
    """The traffic in one sentence."""
    slo = result.spec.scaling.slo
    source = result.spec.trace.name if result.spec.trace else result.spec.arrivals
    impossible = round((1.0 - result.possible_ratio) * result.requests)
    apart = f"; {impossible} of them could not meet the SLO on a replica of their own" if impossible else ""
    return (
        f"{source}: {result.requests} requests in {result.seconds:.0f} s, {result.prompt_tokens_mean:.0f} prompt and "
        f"{result.output_tokens_mean:.0f} answer tokens on average{apart}. TTFT ≤ {slo.ttft_seconds:g} s and "
        f"TPOT ≤ {slo.tpot_seconds * 1000:g} ms, target {result.spec.target:.1%}; each policy begins with "
        f"{result.initial_replicas} replicas."
    )


def html_page(result: StudyResult, *, made_at: str) -> str:
    """The whole page. made_at: when, as a reader wants it."""
    seconds = Axis(label="seconds from the start")
    shown = [one for one in result.policies if one.policy in _PLOTTED] or result.policies
    first = result.policies[0]
    rate = [(point.at_seconds, point.requests_per_second) for point in first.points]
    spec = msgspec.json.format(msgspec.json.encode(result.spec, enc_hook=str), indent=2).decode()
    parts = [
        f"<p>{html.escape(traffic_line(result))}</p>",
        table_of(policy_table(result)),
        "<div class=plots>",
        line_plot("Arrivals", seconds, Axis(label="requests per second"), [Series(name="arrivals", points=rate)]),
        line_plot("Replicas ready", seconds, Axis(label="replicas"), [_series(one, "ready") for one in shown]),
        line_plot(
            "Time to first token, p95",
            seconds,
            Axis(label="seconds", is_log=True),
            [_series(one, "ttft_p95_seconds") for one in shown],
        ),
        line_plot(
            "Requests within the SLO",
            seconds,
            Axis(label="%", end=100.0),
            [_series(one, "good_ratio", 100.0) for one in shown],
        ),
        *[
            line_plot(
                f"{one.policy}: replicas",
                seconds,
                Axis(label="replicas"),
                [_series(one, "desired"), _series(one, "ready")],
            )
            for one in shown
            if one.policy == "argosy"
        ],
        "</div>",
        *_change_parts(result),
        "<h2>What was asked</h2>",
        f"<pre>{html.escape(spec)}</pre>",
        "<p class=dim>Simulated on a virtual clock by the controller's, balancer's and admission's own code. "
        "Replica-hours count from the start of a replica until its last request has ended. The oracle knows all "
        "requests in advance. See docs/simulator.md.</p>",
    ]
    about = f"{result.profile.name} · {result.profile.description} · {made_at}"
    return page_of("Scaling policies, simulated", about, parts)


def _series(one: PolicyResult, field: str, scale: float = 1.0) -> Series:
    points = [(point.at_seconds, getattr(point, field) * scale) for point in one.points]
    name = one.policy if field != "desired" else "wanted"
    return Series(name=name, points=points)


def _change_parts(result: StudyResult) -> list[str]:
    """Why the controller changed its mind, decision by decision."""
    ours = next((one for one in result.policies if one.policy.startswith("argosy")), None)
    if ours is None:
        return []
    rows = [
        [f"{moment.at_seconds:.0f} s", str(moment.desired), moment.message] for moment in ours.changes[:_CHANGES_SHOWN]
    ]
    table = TextTable(title="Decisions", header=["at", "replicas", "why"], rows=rows)
    return [f"<h2>Decisions of {html.escape(ours.policy)}</h2>", table_of(table)]
