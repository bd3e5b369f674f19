"""Two servers side by side: both loaded, asked in turn (A B A B …), compared round by round.

Interleaving makes a slow minute of the machine hit both sides; the figure is the median of the rounds' ratios. The
side that waits must use no CPU: its share is measured and kept with each round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import uvloop

from argosy.evals.loadtest import run_bench
from argosy.evals.metrics import Summary
from argosy.evals.probe import machine_times, steal_ratio
from argosy.evals.spec import BenchSpec, ClosedLoad, PromptSpec
from benchmarks.figures import Figure, Run
from benchmarks.servers import Server

PROMPT_TOKENS = 32
NEW_TOKENS = 128
MAX_IDLE_CORES = 0.05

# One round of one side: (clients, round number) to output tokens per second and facts worth keeping.
Side = Callable[[int, int], tuple[float, dict[str, float]]]


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """Who is compared: our side, the other side, and the process of each, to watch while it waits."""

    name: str
    ours: Side
    theirs: Side
    our_cpu_seconds: Callable[[], float]
    their_cpu_seconds: Callable[[], float]
    their_name: str
    bar: float


def http_side(server: Server, *, num_waves: int = 2) -> Side:
    """A server asked over streaming HTTP: `clients` at a time, `num_waves` requests each, greedy, fixed length."""

    def measure(clients: int, number: int) -> tuple[float, dict[str, float]]:
        summary = ask(server.url, clients, clients * num_waves, seed=number)
        ttft = summary.ttft.p50 if summary.ttft else 0.0
        cpu = summary.probe.client_cpu_ratio if summary.probe else 0.0
        return summary.output_tokens_per_second, {"ttft_p50": ttft, "client_cpu": cpu}

    return measure


def ask(url: str, clients: int, num_requests: int, *, seed: int, warmup: int = 0) -> Summary:
    """One closed-loop load. Raises: RuntimeError if any answer failed or was not of full length."""
    spec = BenchSpec(
        url=url,
        loads=(ClosedLoad(concurrency=clients),),
        prompts=PromptSpec(tokens=PROMPT_TOKENS),
        max_tokens=NEW_TOKENS,
        num_requests=num_requests,
        warmup_requests=warmup,
        seed=seed,
    )
    summary = uvloop.run(run_bench(spec)).results[0].summary
    if summary.requests_failed or summary.output_tokens != NEW_TOKENS * num_requests:
        raise RuntimeError(
            f"{url}: {summary.requests_failed} of {num_requests} failed {summary.errors} {summary.error_example}; "
            f"{summary.output_tokens} tokens instead of {NEW_TOKENS * num_requests}"
        )
    return summary


def compare(contest: Contest, clients: Sequence[int], num_rounds: int, run: Run) -> list[Figure]:
    """Interleaved rounds at each number of clients; one figure, ours / theirs, for each."""
    figures: list[Figure] = []
    for count in clients:
        for side in (contest.ours, contest.theirs):
            side(count, 900)  # warm-up, thrown away
        ours: list[float] = []
        theirs: list[float] = []
        for number in range(num_rounds):
            seed = count * 1000 + number
            before = machine_times()
            # The side that goes first changes with the rounds.
            order = (True, False) if number % 2 == 0 else (False, True)
            facts: dict[str, float] = {}
            for is_ours in order:
                side, idle = (
                    (contest.ours, contest.their_cpu_seconds) if is_ours else (contest.theirs, contest.our_cpu_seconds)
                )
                began, idle_before = time.perf_counter(), idle()
                rate, more = side(count, seed)
                idle_cores = (idle() - idle_before) / (time.perf_counter() - began)
                (ours if is_ours else theirs).append(rate)
                prefix = "our" if is_ours else "their"
                facts |= {f"{prefix}_{key}": value for key, value in more.items()}
                facts[f"{prefix}_rate"] = rate
                facts[f"idle_cores_during_{prefix}_turn"] = idle_cores
                if idle_cores > MAX_IDLE_CORES:
                    print(f"  warning: the waiting side used {idle_cores:.2f} cores", flush=True)
            run.note(
                clients=count,
                round=number,
                ratio=ours[-1] / theirs[-1],
                steal=steal_ratio(before, machine_times()),
                **facts,
            )
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        figures.append(
            Figure(
                what=f"{contest.name}, {count} clients",
                values=ratios,
                unit="×",
                bar=contest.bar,
                detail=f"{_middle(ours):.0f} tok/s against {_middle(theirs):.0f} ({contest.their_name})",
            )
        )
    return figures


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
