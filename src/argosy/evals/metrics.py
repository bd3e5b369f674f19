"""Every figure of a report, as pure functions of the records.

Definitions follow inference-perf, with one change: all latencies count from the *intended* send time.
Throughput counts the tokens that arrived inside the measured window, whichever request they belong to, so that
requests cut by the window's ends count for the part that lies in it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from argosy.evals.probe import ProbeReport
from argosy.evals.records import ErrorKind, RequestRecord

MAX_CLIENT_CPU_RATIO = 0.08
MAX_LAG_SECONDS = 0.005
MAX_STEAL_RATIO = 0.03
# Requests of an open loop pile up if, late in the run, this many times as many run as early on.
_PILE_UP_RATIO = 1.5
_PILE_UP_REQUESTS = 4.0


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """A sample in nine numbers."""

    count: int
    mean: float
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The measured span, in seconds on the records' clock."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length; never zero."""
        return max(self.end - self.start, 1e-9)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One load in figures. Units: seconds, tokens, requests per second.

    offered_rate: of an open load. goodput_rate, goodput_ratio: requests that met every limit, per second and as a
    share of all that were sent. itl: gaps between pieces with text; a piece may hold more than one token.
    """

    label: str
    window_seconds: float
    requests_sent: int
    requests_completed: int
    requests_failed: int
    requests_interrupted: int
    errors: dict[str, int]
    error_example: str
    request_rate: float
    output_tokens_per_second: float
    total_tokens_per_second: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    tokens_per_chunk: float
    is_counted_by_usage: bool
    ttft: Distribution | None = None
    tpot: Distribution | None = None
    itl: Distribution | None = None
    e2e: Distribution | None = None
    send_delay: Distribution | None = None
    prompt_length: Distribution | None = None
    output_length: Distribution | None = None
    finish_reasons: dict[str, int] = {}
    offered_rate: float | None = None
    goodput_rate: float | None = None
    goodput_ratio: float | None = None
    probe: ProbeReport | None = None
    warnings: list[str] = []


def percentile(ordered: Sequence[float], ratio: float) -> float:
    """The value below which `ratio` of a sorted sample lies, between neighbours linearly.

    Source: Hyndman and Fan 1996, definition 7 (numpy's default).
    """
    position = ratio * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def distribution(values: Sequence[float]) -> Distribution | None:
    """The sample in figures; None for an empty one."""
    if not values:
        return None
    ordered = sorted(values)
    return Distribution(
        count=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        min=ordered[0],
        p50=percentile(ordered, 0.5),
        p90=percentile(ordered, 0.9),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
        p999=percentile(ordered, 0.999),
        max=ordered[-1],
    )


def is_good(record: RequestRecord, limits: Mapping[str, float]) -> bool:
    """Whether a request was answered within every limit. Units: limits in seconds; metrics ttft, tpot, e2e."""
    if record.error is not None:
        return False
    seen = {"ttft": record.ttft_seconds, "tpot": record.tpot_seconds, "e2e": record.e2e_seconds}
    return all((seen[metric] or 0.0) <= limit for metric, limit in limits.items())


def tokens_in_window(record: RequestRecord, window: Window) -> float:
    """The tokens of a record that arrived in the window, each of its pieces taken to hold equally many."""
    if not record.chunk_times:
        return 0.0
    inside = bisect_left(record.chunk_times, window.end) - bisect_left(record.chunk_times, window.start)
    return record.output_tokens * inside / len(record.chunk_times)


def summarise(
    label: str,
    records: Sequence[RequestRecord],
    window: Window,
    *,
    goodput: Mapping[str, float] | None = None,
    offered_rate: float | None = None,
    probe: ProbeReport | None = None,
) -> Summary:
    """One load in figures, from its records and nothing else."""
    done = [record for record in records if record.error is None]
    cut = [record for record in records if record.error == ErrorKind.INTERRUPTED]
    failed = [record for record in records if record.error not in (None, ErrorKind.INTERRUPTED)]
    chunks = sum(len(record.chunk_times) for record in done)
    output_tokens = sum(record.output_tokens for record in done)
    prompt_tokens = sum(record.prompt_tokens or 0 for record in done)
    output_rate = math.fsum(tokens_in_window(record, window) for record in records) / window.seconds
    finished_inside = [record for record in done if record.ended_at <= window.end]
    good = [record for record in done if is_good(record, goodput)] if goodput else []
    asked = len(done) + len(failed)
    summary = Summary(
        label=label,
        window_seconds=window.seconds,
        requests_sent=len(records),
        requests_completed=len(done),
        requests_failed=len(failed),
        requests_interrupted=len(cut),
        errors=dict(Counter(str(record.error) for record in failed).most_common()),
        error_example=failed[0].error_detail if failed else "",
        request_rate=len(finished_inside) / window.seconds,
        output_tokens_per_second=output_rate,
        total_tokens_per_second=output_rate
        + sum(record.prompt_tokens or 0 for record in finished_inside) / window.seconds,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        cached_tokens=sum(record.cached_tokens or 0 for record in done),
        tokens_per_chunk=output_tokens / chunks if chunks else 0.0,
        is_counted_by_usage=all(record.completion_tokens is not None for record in done),
        ttft=distribution([at for record in done if (at := record.ttft_seconds) is not None]),
        tpot=distribution([at for record in done if (at := record.tpot_seconds) is not None]),
        itl=distribution([b - a for record in done for a, b in pairwise(record.chunk_times)]),
        e2e=distribution([record.e2e_seconds for record in done]),
        send_delay=distribution([record.sent_at - record.intended_at for record in records if record.sent_at]),
        prompt_length=distribution([record.prompt_tokens for record in done if record.prompt_tokens is not None]),
        output_length=distribution([record.output_tokens for record in done]),
        finish_reasons=dict(Counter(record.finish_reason or "none" for record in done).most_common()),
        offered_rate=offered_rate,
        goodput_rate=sum(record.ended_at <= window.end for record in good) / window.seconds if goodput else None,
        goodput_ratio=len(good) / asked if goodput and asked else None,
        probe=probe,
    )
    warnings = warnings_of(summary)
    if offered_rate and (growth := pile_up(records, window)):
        warnings.append(
            f"requests piled up from {growth[0]:.1f} to {growth[1]:.1f} running: the server does not keep up with "
            "this rate, and latencies grow with the length of the run"
        )
    return msgspec.structs.replace(summary, warnings=warnings)


def pile_up(records: Sequence[RequestRecord], window: Window) -> tuple[float, float] | None:
    """Mean requests running in the second and in the last quarter of the window, if the latter is much larger."""
    quarter = window.seconds / 4
    early, late = (
        math.fsum(
            max(0.0, min(record.ended_at, start + quarter) - max(record.intended_at, start)) for record in records
        )
        / quarter
        for start in (window.start + quarter, window.end - quarter)
    )
    grows = late > _PILE_UP_RATIO * early and late > early + _PILE_UP_REQUESTS
    return (early, late) if grows else None


def warnings_of(summary: Summary) -> list[str]:
    """Sentences on what makes the figures less trustworthy."""
    found: list[str] = []
    probe = summary.probe
    if probe and probe.client_cpu_ratio > MAX_CLIENT_CPU_RATIO:
        found.append(
            f"the client took {probe.client_cpu_ratio:.1%} of the machine (more than {MAX_CLIENT_CPU_RATIO:.0%}): "
            "the server had less; run the client elsewhere"
        )
    if probe and probe.lag_p99_seconds > MAX_LAG_SECONDS:
        found.append(
            f"the client's event loop ran {probe.lag_p99_seconds * 1000:.1f} ms late at p99 (more than "
            f"{MAX_LAG_SECONDS * 1000:.0f} ms): latencies are overstated by up to that"
        )
    if probe and probe.steal_ratio > MAX_STEAL_RATIO:
        found.append(f"the hypervisor stole {probe.steal_ratio:.1%} of the machine: repeat on a quieter one")
    if summary.requests_completed and not summary.is_counted_by_usage:
        found.append("the server sent no usage: tokens are counted as streamed pieces, which may hold several")
    if summary.requests_failed:
        found.append(f"{summary.requests_failed} requests failed; latencies are of the others only")
    return found


class TimelinePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One bucket of time: requests running in its middle, tokens per second and answers completed within."""

    at_seconds: float
    running: int
    output_tokens_per_second: float
    completed: int


def timeline(records: Sequence[RequestRecord], *, buckets: int = 120) -> list[TimelinePoint]:
    """The run over time, in `buckets` equal spans from 0 to the last end."""
    end = max((record.ended_at for record in records), default=0.0)
    if end <= 0:
        return []
    width = end / buckets
    tokens = [0.0] * buckets
    completed = [0] * buckets
    running = [0] * buckets
    for record in records:
        if record.chunk_times:
            share = record.output_tokens / len(record.chunk_times)
            for at in record.chunk_times:
                if at >= 0:
                    tokens[min(buckets - 1, int(at / width))] += share
        if record.error is None:
            completed[min(buckets - 1, max(0, int(record.ended_at / width)))] += 1
        first = max(0, math.ceil(record.sent_at / width - 0.5))
        last = min(buckets - 1, math.floor(record.ended_at / width - 0.5))
        for bucket in range(first, last + 1):
            running[bucket] += 1
    return [
        TimelinePoint(
            at_seconds=(bucket + 0.5) * width,
            running=running[bucket],
            output_tokens_per_second=tokens[bucket] / width,
            completed=completed[bucket],
        )
        for bucket in range(buckets)
    ]
