"""Resident memory of the server and its engine process, serving the default model to 32 clients.

RSS sums the processes, so pages that two of them share count twice; PSS, which counts them once, is kept beside it.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from argosy.evals.probe import process_tree, process_usage
from benchmarks.figures import Figure, Run
from benchmarks.rounds import ask
from benchmarks.servers import argosy_server

_SAMPLE_SECONDS = 0.25
_GIB = 2**30


def pss_bytes(pid: int) -> int:
    """Proportional memory of a process and its children. Source: /proc/PID/smaps_rollup, in kB."""
    total = 0
    for member in process_tree(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


class Peak:
    """The largest memory seen while a `with` block runs."""

    def __init__(self, pid: int) -> None:
        self.rss_bytes = 0
        self.pss_bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-peak")

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.rss_bytes = max(self.rss_bytes, process_usage(self._pid).rss_bytes)
            self.pss_bytes = max(self.pss_bytes, pss_bytes(self._pid))


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args(arguments)
    run = Run("memory")
    values: list[float] = []
    with argosy_server(flags.model) as server:
        idle = process_usage(server.pid).rss_bytes / _GIB
        for number in range(flags.rounds):
            with Peak(server.pid) as peak:
                ask(server.url, flags.clients, flags.clients, seed=number)
            values.append(peak.rss_bytes / _GIB)
            run.note(round=number, rss_gib=values[-1], pss_gib=peak.pss_bytes / _GIB)
    figure = Figure(
        what=f"resident memory at {flags.clients} clients, server and engine",
        values=values,
        unit=" GiB",
        bar=1.2e9 / _GIB,
        is_floor=False,
        detail=f"{idle:.2f} GiB when ready",
    )
    run.finish([figure])
    return 0 if figure.is_met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
