"""The small T5 through the handler of the GKE sample: TorchServe and Argosy.

32 clients, texts of three to forty words, the archive of examples/t5/archive with torch on both servers, batches of one
as the sample has them (`--batch-size` for more). Before the clock starts each text is asked once on each server, and
the answers must be equal. `torchserve_engine` measures our own engine against this handler.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.archives import ArchiveSpec
from benchmarks.figures import Figure, Run
from benchmarks.torchserve_echo import figures, interleaved
from benchmarks.torchserve_servers import Side, add_flags, two_sides, wait_until_answered
from benchmarks.wire_calls import Call, exchange
from benchmarks.wire_client import Question, prediction_question

T5 = Path(__file__).parents[1] / "examples" / "t5"
MODEL = "t5-small"
TEXTS = (
    ("en", "fr", "seven"),
    ("en", "fr", "forty-two"),
    ("en", "de", "one hundred and eleven"),
    ("en", "fr", "nine thousand, nine hundred and ninety-nine"),
    ("en", "de", "three hundred and seventy-seven thousand, seven hundred and seventy-seven"),
    ("fr", "en", "quatre-vingt-dix-sept"),
    ("de", "en", "achthundertachtundachtzigtausendachthundertachtundachtzig"),
    ("en", "fr", "two hundred and twenty-two thousand, six hundred and fifty-four"),
)


def t5_archive(name: str, *, config: dict[str, Any] | None = None) -> ArchiveSpec:
    """An archive of the small T5 with the sample's own members."""
    checkpoint = ["config.json", "generation_config.json", "spiece.model", "tokenizer.json", "tokenizer_config.json"]
    return ArchiveSpec(
        file=f"{name}.mar",
        model=name,
        handler="handler.py",
        source="archive/handler.py",
        manifest={"serializedFile": "model.safetensors", "modelFile": "model.py"},
        files=(
            *("archive/model.py", "archive/setup_config.json", "model/model.safetensors"),
            *(f"model/{one}" for one in checkpoint),
        ),
        config=config,
    )


def payloads() -> list[dict[str, str]]:
    """What the clients send, in turn."""
    return [{"text": text, "from": source, "to": target} for source, target, text in TEXTS]


def questions_for(side: Side, model: str = MODEL) -> list[Question]:
    """Each text with the answer this server gives now as the right one. Raises: RuntimeError."""
    asked: list[Question] = []
    for payload in payloads():
        answer = exchange(Call(call=f"POST inference /predictions/{model}", json=payload), side.ports)
        if answer.status != 200:
            raise RuntimeError(f"{side.name} answers {answer.status} {answer.body}")
        text = msgspec.json.encode(answer.body["text"])
        expected = (text.strip(b'"'), 1, b"}")
        asked.append(prediction_question(side.url, model, msgspec.json.encode(payload), expected))
    return asked


def check_equal(sides: tuple[Side, Side]) -> None:
    """Raises: RuntimeError if the servers translate a text differently."""
    for payload in payloads():
        call = Call(call=f"POST inference /predictions/{MODEL}", json=payload)
        one, other = (exchange(call, side.ports).body for side in sides)
        if one != other:
            raise RuntimeError(f"{payload}: {one} from {sides[0].name}, {other} from {sides[1].name}")


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    flags = parser.parse_args(arguments)
    run = Run("torchserve_t5")
    config = {"minWorkers": flags.workers, "maxWorkers": flags.workers, "batchSize": flags.batch_size}
    archive = t5_archive(MODEL, config={**config, "maxBatchDelay": 10})
    with two_sides(flags, [(archive, T5)], {}) as sides, sides[0].server, sides[1].server:
        for side in sides:
            wait_until_answered(side, [Call(call=f"POST inference /predictions/{MODEL}", json=payloads()[0])])
        check_equal(sides)
        rounds = interleaved(sides, {side.name: questions_for(side) for side in sides}, flags, run)
    found: list[Figure] = figures(
        f"small T5 through the sample's handler, {flags.clients} clients", rounds, rate_bar=3.0, p99_bar=None
    )
    run.finish(found)
    return 0 if all(figure.is_met for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
