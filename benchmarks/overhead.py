"""CPU time outside the engine per streamed token.

The engine computes in a child process, so the CPU time of the server's own process is what HTTP, text and JSON cost.
Measured with the default engine at 32 clients, which is the figure; and with the echo engine, which answers as fast
as it is read, so that several tokens leave in one write: the floor.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import uvloop

from argosy.evals.loadtest import run_bench
from argosy.evals.probe import process_tree
from argosy.evals.spec import BenchSpec, ClosedLoad, PromptSpec
from benchmarks.figures import Figure, Run
from benchmarks.servers import Server, argosy_server

_NANOSECONDS = 1e-9


def own_cpu_seconds(pid: int) -> float:
    """CPU time of one process, its threads but not its children. Source: /proc/PID/task/*/schedstat, nanoseconds."""
    return (
        sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) * _NANOSECONDS
    )


def round_of(server: Server, clients: int, max_tokens: int, waves: int, seed: int) -> tuple[float, float]:
    """CPU seconds of the server's own process per token, and tokens per second."""
    spec = BenchSpec(
        url=server.url,
        loads=(ClosedLoad(concurrency=clients),),
        prompts=PromptSpec(tokens=32),
        max_tokens=max_tokens,
        num_requests=clients * waves,
        warmup_requests=0,
        seed=seed,
    )
    before = own_cpu_seconds(server.pid)
    summary = uvloop.run(run_bench(spec)).results[0].summary
    used = own_cpu_seconds(server.pid) - before
    if summary.requests_failed:
        raise RuntimeError(f"{summary.errors}: {summary.error_example}")
    return used / summary.output_tokens, summary.output_tokens_per_second


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args(arguments)
    run = Run("overhead")
    figures: list[Figure] = []
    for name, options, max_tokens, waves in (
        ("default engine", (), 128, 1),
        ("echo engine", ("--engine", "echo"), 512, 4),
    ):
        with argosy_server(flags.model, *options) as server:
            round_of(server, flags.clients, 32, 1, 999)
            values: list[float] = []
            rates: list[float] = []
            for number in range(flags.rounds):
                cost, rate = round_of(server, flags.clients, max_tokens, waves, number)
                values.append(cost * 1e6)
                rates.append(rate)
                run.note(engine=name, round=number, microseconds_per_token=values[-1], tokens_per_second=rate)
            processes = len(process_tree(server.pid))
        figures.append(
            Figure(
                what=f"server CPU time outside the engine per streamed token, {name}, {flags.clients} clients",
                values=values,
                unit=" µs",
                bar=60.0,
                is_floor=False,
                detail=f"{sorted(rates)[len(rates) // 2]:.0f} tok/s, {processes} processes",
            )
        )
    run.finish(figures)
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
