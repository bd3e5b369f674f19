"""What a repeated prefix saves: first token of a known prefix with a new question / of the prefix cold."""

from __future__ import annotations

import argparse
import sys

from argosy.evals.prompts import Calibration, PromptWriter
from benchmarks.figures import Figure, Run
from benchmarks.servers import argosy_server
from benchmarks.single import chat

QUESTION_WORDS = 8
NEW_TOKENS = 8  # More than one: a special token in the first place shows no text.


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=750, help="length of the shared prefix")
    parser.add_argument("--rounds", type=int, default=9)
    flags = parser.parse_args(arguments)
    run = Run("prefix")
    ratios: list[float] = []
    cold: list[float] = []
    warm: list[float] = []
    with argosy_server(flags.model) as server:
        chat(server.url, "Say hello.", max_tokens=8)
        overhead = chat(server.url, "time", max_tokens=1).prompt_tokens or 1
        for number in range(flags.rounds):
            writer = PromptWriter(Calibration(overhead_tokens=overhead - 1.0), seed=number)
            prefix = writer.text(flags.tokens, key=number)
            asked = [
                chat(server.url, f"{prefix} {' '.join(writer.words(QUESTION_WORDS, key))}", max_tokens=NEW_TOKENS)
                for key in (1000 + number, 2000 + number)
            ]
            times = [one.ttft_seconds or 0.0 for one in asked]
            cold.append(times[0])
            warm.append(times[1])
            ratios.append(times[1] / times[0])
            run.note(round=number, prompt_tokens=asked[0].prompt_tokens, cold=cold[-1], warm=warm[-1], ratio=ratios[-1])
    middle = len(ratios) // 2
    figure = Figure(
        what=f"first token of a repeated {flags.tokens}-token prefix / cold",
        values=ratios,
        unit="",
        bar=0.15,
        is_floor=False,
        detail=f"{sorted(warm)[middle] * 1000:.0f} ms against {sorted(cold)[middle] * 1000:.0f} ms",
    )
    run.finish([figure])
    return 0 if figure.is_met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
