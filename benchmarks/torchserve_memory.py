"""Memory of four workers of one model, and of the whole server: TorchServe and Argosy, the small T5 with torch.

Proportional sizes: a page that four processes share counts a quarter in each. Workers are those processes that the
description of the model names; both servers have answered on every worker before they are measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figure, Run
from benchmarks.memory import pss_bytes
from benchmarks.torchserve_echo import load
from benchmarks.torchserve_servers import Side, add_flags, two_sides, wait_until_answered
from benchmarks.torchserve_t5 import MODEL, T5, payloads, questions_for, t5_archive
from benchmarks.wire_calls import Call, exchange

WORKERS = 4
_MIB = 2**20


def worker_pids(side: Side) -> list[int]:
    """The processes of the model's workers, as its description names them."""
    answer = exchange(Call(call=f"GET management /models/{MODEL}"), side.ports)
    return [int(worker["pid"]) for version in answer.body for worker in version["workers"]]


def own_pss_bytes(pid: int) -> int:
    """Proportional memory of one process without its children. Source: /proc/PID/smaps_rollup, in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def measure(side: Side, flags: argparse.Namespace) -> dict[str, float]:
    """Start, load every worker, measure, stop. Raises: RuntimeError if there are not four workers."""
    with side.server:
        wait_until_answered(side, [Call(call=f"POST inference /predictions/{MODEL}", json=payloads()[0])])
        load(side, questions_for(side), 4 * WORKERS, flags.seconds)
        pids = worker_pids(side)
        if len(pids) != WORKERS or len(set(pids)) != WORKERS:
            raise RuntimeError(f"{side.name} names the workers {pids}, not {WORKERS} processes")
        return {
            "workers_mib": sum(map(own_pss_bytes, pids)) / _MIB,
            "server_mib": pss_bytes(side.server.pid) / _MIB,
        }


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    flags = parser.parse_args(arguments)
    run = Run("torchserve_memory")
    archive = t5_archive(MODEL, config={"minWorkers": WORKERS, "maxWorkers": WORKERS})
    rounds: list[dict[str, dict[str, float]]] = []
    with two_sides(flags, [(archive, T5)], {}) as sides:
        for number in range(flags.rounds):
            rounds.append({side.name: measure(side, flags) for side in sides})
            facts = {f"{name}_{key}": value for name, one in rounds[-1].items() for key, value in one.items()}
            run.note(round=number, **facts)
    found = [
        _figure("four workers", "workers_mib", rounds, bar=0.6),
        _figure("server with four workers", "server_mib", rounds, bar=0.6),
    ]
    run.finish(found)
    return 0 if all(figure.is_met for figure in found) else 1


def _figure(what: str, key: str, rounds: Sequence[dict[str, dict[str, float]]], *, bar: float) -> Figure:
    ours, theirs = ([one[name][key] for one in rounds] for name in ("argosy", "torchserve"))
    return Figure(
        what=f"memory (PSS) of {what} of a small T5 / TorchServe's",
        values=[one / other for one, other in zip(ours, theirs, strict=True)],
        unit="×",
        bar=bar,
        is_floor=False,
        detail=f"{sorted(ours)[len(ours) // 2]:.0f} against {sorted(theirs)[len(theirs) // 2]:.0f} MiB",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
