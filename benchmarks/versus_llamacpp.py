"""Argosy against the llama.cpp server of `xllamacpp`, same GGUF file, over streaming HTTP.

The other side gets its best: continuous batching, a slot per client, and the thread count that wins a short trial.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.figures import Run
from benchmarks.rounds import Contest, ask, compare, http_side
from benchmarks.servers import Server, argosy_server, llamacpp_server


def best_threads(python: Path, model: Path, clients: int, candidates: list[int]) -> int:
    """The thread count with the most tokens per second at `clients`."""
    rates: dict[int, float] = {}
    for threads in candidates:
        with llamacpp_server(python, model, slots=clients, threads=threads) as server:
            rates[threads] = ask(server.url, clients, clients, seed=threads, warmup=clients).output_tokens_per_second
    print(f"  llama.cpp by threads: {rates}", flush=True)
    return max(rates, key=lambda threads: rates[threads])


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--xllamacpp-python", type=Path, required=True, help="python that has xllamacpp installed")
    parser.add_argument("--model", default="smollm2", help="what argosy serves")
    parser.add_argument("--gguf", type=Path, required=True, help="the same model's GGUF file")
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="several: the best is found first")
    flags = parser.parse_args(arguments)
    run = Run("versus_llamacpp")
    most = max(flags.clients)
    threads = flags.threads[0]
    if len(flags.threads) > 1:
        threads = best_threads(flags.xllamacpp_python, flags.gguf, most, flags.threads)
    theirs: Server
    with (
        llamacpp_server(flags.xllamacpp_python, flags.gguf, slots=most, threads=threads) as theirs,
        argosy_server(flags.model) as ours,
    ):
        contest = Contest(
            name="over HTTP / llama.cpp server, same GGUF",
            ours=http_side(ours, num_waves=1),
            theirs=http_side(theirs, num_waves=1),
            our_cpu_seconds=ours.cpu_seconds,
            their_cpu_seconds=theirs.cpu_seconds,
            their_name="llama.cpp",
            bar=2.0,
        )
        figures = compare(contest, flags.clients, flags.rounds, run)
        ready = {"argosy": ours.seconds_to_ready, "llamacpp": theirs.seconds_to_ready}
    run.finish(figures, threads=threads, seconds_to_ready=ready)
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
