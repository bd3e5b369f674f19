"""The small T5 behind the preset `translation` (our seq2seq engine) against the same files behind the sample's handler.

Both are models of one server of ours, asked in turn with the texts of torchserve_t5: the handler has two workers with
torch and batches of one, the preset has no worker at all. `--torchserve FILE` is not needed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.archives import ArchiveSpec
from benchmarks.figures import Figure, Run
from benchmarks.torchserve_echo import load
from benchmarks.torchserve_servers import Side, one_side, wait_until_answered
from benchmarks.torchserve_t5 import MODEL, T5, payloads, questions_for, t5_archive
from benchmarks.wire_calls import Call
from benchmarks.wire_client import Measured

_PRESET = "t5-preset"


def preset_archive() -> ArchiveSpec:
    """The checkpoint alone; the handler is the preset's name."""
    with_handler = t5_archive(_PRESET)
    files = tuple(name for name in with_handler.files if name.startswith("model/"))
    manifest: dict[str, str | None] = {"serializedFile": "model.safetensors"}
    return msgspec.structs.replace(with_handler, handler="translation", source=None, files=files, manifest=manifest)


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--argosy-python", type=Path, help="interpreter with torch, transformers and ctranslate2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one load")
    parser.add_argument("--clients", type=int, default=32)
    flags = parser.parse_args(arguments)
    run = Run("torchserve_engine")
    handler = t5_archive(MODEL, config={"minWorkers": 2, "maxWorkers": 2})
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        side = one_side("argosy", Path(folder) / "argosy", flags, [(handler, T5), (preset_archive(), T5)], {})
        with side.server:
            models = (MODEL, _PRESET)
            calls = [Call(call=f"POST inference /predictions/{one}", json=payloads()[0]) for one in models]
            wait_until_answered(side, calls)
            for model in models:
                ask(side, model, flags.clients, 1.0)
            for number in range(flags.rounds):
                order = models if number % 2 == 0 else models[::-1]
                measured = {model: ask(side, model, flags.clients, flags.seconds) for model in order}
                ratios.append(measured[_PRESET].rate / measured[MODEL].rate)
                facts = {f"{name}_rate": one.rate for name, one in measured.items()}
                facts |= {f"{name}_p99_ms": one.percentile_ms(0.99) for name, one in measured.items()}
                run.note(round=number, ratio=ratios[-1], **facts)
    figure = Figure(what="small T5: our engine's requests/s / our handler path's", values=ratios, unit="×", bar=2.0)
    run.finish([figure])
    return 0 if figure.is_met else 1


def ask(side: Side, model: str, clients: int, seconds: float) -> Measured:
    """One load on one of the models."""
    return load(side, questions_for(side, model), clients, seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
