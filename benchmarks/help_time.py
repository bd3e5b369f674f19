"""`argosy --help`: how long it takes, and that it imports nothing heavy."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figures import Figure, Run

HEAVY = ("torch", "openvino", "openvino_genai", "transformers", "tokenizers", "starlette", "numpy", "httpx")


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if the bar is missed or something heavy is imported."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    flags = parser.parse_args(arguments)
    run = Run("help_time")
    script = Path(sys.executable).with_name("argosy")
    subprocess.run([script, "--help"], check=True, capture_output=True)  # noqa: S603  # fills the page cache
    values: list[float] = []
    for number in range(flags.rounds):
        began = time.perf_counter()
        subprocess.run([script, "--help"], check=True, capture_output=True)  # noqa: S603
        values.append((time.perf_counter() - began) * 1000)
        run.note(round=number, milliseconds=values[-1])
    ask = f"import sys, argosy.cli.main as m; m.run(['--help']); print([n for n in {HEAVY!r} if n in sys.modules])"
    told = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True).stdout  # noqa: S603
    heavy = told.strip().splitlines()[-1]
    figure = Figure(
        what="argosy --help", values=values, unit=" ms", bar=150.0, is_floor=False, detail=f"heavy imports: {heavy}"
    )
    run.finish([figure], heavy_imports=heavy)
    return 0 if figure.is_met and heavy == "[]" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
