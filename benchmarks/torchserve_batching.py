"""Batching on against batches of one, where batching does not pay: a handler whose cost grows with the batch.

Two models of one server of ours, the same handler, one worker each: one may batch up to eight and is tuned (the
default), the other never batches. Asked in turn by the same number of clients.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.archives import ArchiveSpec
from benchmarks.figures import Figure, Run
from benchmarks.torchserve_echo import load
from benchmarks.torchserve_servers import Side, one_side, wait_until_answered
from benchmarks.wire_calls import Call
from benchmarks.wire_client import Measured, prediction_question

_SOURCES = Path(__file__).parent / "torchserve_handlers"
_MODELS = {"batched": 8, "single": 1}


def ask(side: Side, model: str, clients: int, seconds: float) -> Measured:
    """One load on one of the models."""
    return load(side, [prediction_question(side.url, model, b"{}", (b'"sum"', 1, b"}"))], clients, seconds)


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one load")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--delay-ms", type=int, default=50, help="maxBatchDelay of the model that may batch")
    flags = parser.parse_args(arguments)
    flags.argosy_python = None
    run = Run("torchserve_batching")
    archives = [
        (
            ArchiveSpec(
                file=f"{model}.mar",
                model=model,
                handler="busy.py",
                config={"minWorkers": 1, "maxWorkers": 1, "batchSize": size, "maxBatchDelay": flags.delay_ms},
            ),
            _SOURCES,
        )
        for model, size in _MODELS.items()
    ]
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        side = one_side("argosy", Path(folder) / "argosy", flags, archives, {})
        with side.server:
            wait_until_answered(side, [Call(call=f"POST inference /predictions/{model}", json={}) for model in _MODELS])
            for model in _MODELS:
                ask(side, model, flags.clients, flags.seconds)  # what is learned is learned here
            for number in range(flags.rounds):
                order = list(_MODELS) if number % 2 == 0 else list(_MODELS)[::-1]
                measured = {model: ask(side, model, flags.clients, flags.seconds) for model in order}
                ratios.append(measured["batched"].rate / measured["single"].rate)
                facts = {f"{model}_rate": one.rate for model, one in measured.items()}
                facts |= {f"{model}_p99_ms": one.percentile_ms(0.99) for model, one in measured.items()}
                run.note(round=number, ratio=ratios[-1], **facts)
    figure = Figure(what="batching where it does not pay: requests/s on / off", values=ratios, unit="×", bar=0.98)
    run.finish([figure])
    return 0 if figure.is_met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
