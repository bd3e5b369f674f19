"""The child that prepares: one job in on standard input, activities out on standard output, a folder on disk.

Run as `python -m argosy.engines.openvino.preparing` by `preparation.py`. A process of its own, because what it does
takes the memory of a whole model for a while, and reads files from anywhere.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import openvino_genai

from argosy.artifacts.durable import require_space
from argosy.core.errors import ArtifactError, SpecError
from argosy.core.gguf import read_gguf
from argosy.engines.openvino.preparation import MODEL_FILES, VOCABULARY, Job, Said
from argosy.engines.openvino.rewriting import rewrite, rewritten_bytes
from argosy.engines.openvino.vocabulary import no_tokenizer, save_vocabulary, token_spellings

Say = Callable[[Said], None]


def prepare(job: Job, say: Say) -> None:
    """Fill the folder job.target: the vocabulary if its tokens can be spelled, the model if wanted."""
    sources, target = [Path(source) for source in job.sources], Path(job.target)
    metadata = read_gguf(sources[0]).metadata
    spellings, eos = token_spellings(metadata), metadata.get("tokenizer.ggml.eos_token_id")
    if spellings is not None and isinstance(eos, int):
        (target / VOCABULARY).mkdir()
        save_vocabulary(spellings, eos, target / VOCABULARY)
    if job.with_model:
        save_model(sources, target, say)


def save_model(sources: list[Path], target: Path, say: Say) -> None:
    """Write openvino_model.xml and .bin. The library has no function for that; its pipeline does it as it starts."""
    # The rewritten file and the model made of it lie side by side for a moment.
    require_space(target, 2 * rewritten_bytes(sources))
    scratch = target / "scratch"
    scratch.mkdir()
    percents = set()

    def on_ratio(ratio: float) -> None:
        percent = f"{ratio:.0%}"
        if percent not in percents:
            percents.add(percent)
            say(Said(activity=f"rewriting, {percent}"))

    rewrite(sources, scratch / "model.gguf", on_ratio)
    say(Said(activity="building the graph"))
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = 1
    openvino_genai.ContinuousBatchingPipeline(
        str(scratch / "model.gguf"), no_tokenizer(), scheduler, "CPU", enable_save_ov_model=True
    )
    for name in MODEL_FILES:
        (scratch / name).rename(target / name)
    shutil.rmtree(scratch)


def main() -> int:
    """Read the job, do it, exit 0; or say why not and exit 1."""
    # Libraries print to descriptor 1; the parent reads JSON there, so it becomes descriptor 2 for everybody else.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def say(said: Said) -> None:
        answers.write(msgspec.json.encode(said) + b"\n")

    try:
        prepare(msgspec.json.decode(sys.stdin.buffer.read(), type=Job), say)
    except SpecError as error:
        say(Said(error=error.message, is_file_wrong=True))
        return 1
    except ArtifactError as error:
        say(Said(error=error.message, is_disk_full=True))
        return 1
    except Exception as error:  # noqa: BLE001  # boundary: whatever the tools raise becomes one sentence for the parent
        say(Said(error=f"{type(error).__name__}: {error}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
