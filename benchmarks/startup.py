"""Start to ready, and to the first token: exec of `argosy serve` until /health says 200, model in the store already."""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.figures import Figure, Run
from benchmarks.servers import argosy_server
from benchmarks.single import chat


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args(arguments)
    run = Run("startup")
    with argosy_server(flags.model):
        pass  # the first start fills the caches; the bar is the second
    ready: list[float] = []
    first_token: list[float] = []
    for number in range(flags.rounds):
        server = argosy_server(flags.model)
        began = time.perf_counter()
        with server:
            record = chat(server.url, "Say hello.", max_tokens=2)
            first_token.append(record.chunk_times[0] - began)
            ready.append(server.seconds_to_ready)
        run.note(round=number, ready=ready[-1], first_token=first_token[-1])
    figures = [
        Figure(what="start to ready, second start", values=ready, unit=" s", bar=3.5, is_floor=False),
        Figure(what="start to first token, second start", values=first_token, unit=" s"),
    ]
    run.finish(figures)
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
