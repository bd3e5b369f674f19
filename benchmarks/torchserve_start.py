"""Start to ready with three models: TorchServe and Argosy, from the start of the process to an answer of each model.

Not to the first `/ping` that says healthy: TorchServe says so before a worker has started. The archives are plain
Python by default; `--model t5` packs the small T5 with torch and transformers three times.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.archives import ArchiveSpec
from benchmarks.figures import Figure, Run
from benchmarks.torchserve_profiles import WIRE
from benchmarks.torchserve_servers import Packed, Side, add_flags, two_sides, wait_until_answered
from benchmarks.torchserve_t5 import T5, t5_archive
from benchmarks.wire_calls import Call

_NAMES = ("first", "second", "third")
_PAYLOAD = {"text": "forty-two", "from": "en", "to": "fr"}


def packed(model: str) -> Packed:
    """Three archives of the same files under three names."""
    if model == "t5":
        return [(t5_archive(name), T5) for name in _NAMES]
    return [(ArchiveSpec(file=f"{name}.mar", model=name, handler="echo.py"), WIRE / "handlers") for name in _NAMES]


def seconds_to_answers(side: Side) -> float:
    """Start it, wait for an answer of each model, stop it."""
    began = time.perf_counter()
    with side.server:
        calls = [Call(call=f"POST inference /predictions/{name}", json=_PAYLOAD) for name in _NAMES]
        wait_until_answered(side, calls)
        return time.perf_counter() - began


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    parser.add_argument("--model", choices=("echo", "t5"), default="echo")
    flags = parser.parse_args(arguments)
    run = Run(f"torchserve_start_{flags.model}")
    ratios: list[float] = []
    with two_sides(flags, packed(flags.model), {"default_workers_per_model": "1"}) as sides:
        for side in sides:
            seconds_to_answers(side)  # fills the page cache, and ours prepares archives once
        for number in range(flags.rounds):
            order = sides if number % 2 == 0 else sides[::-1]
            seconds = {side.name: seconds_to_answers(side) for side in order}
            ratios.append(seconds["argosy"] / seconds["torchserve"])
            run.note(round=number, ratio=ratios[-1], ours=seconds["argosy"], theirs=seconds["torchserve"])
    ours, theirs = (sorted(one[key] for one in run.rounds)[len(run.rounds) // 2] for key in ("ours", "theirs"))
    figure = Figure(
        what=f"start to answers of three {flags.model} models / TorchServe's",
        values=ratios,
        unit="×",
        bar=0.3,
        is_floor=False,
        detail=f"{ours:.2f} against {theirs:.2f} s",
    )
    run.finish([figure])
    return 0 if figure.is_met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
