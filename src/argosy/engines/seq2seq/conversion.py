"""A T5 checkpoint becomes, once, a CTranslate2 folder with smaller weights.

It takes numpy and less than a second for T5-base (223 million parameters), so it happens in a thread of the server
that needs it. The folder lies in the engine's cache, named for what it was made of: the model's digest, the weight
format and the library's version. It appears there whole, by a rename, or not at all; two processes that want the same
one make it once.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import ctranslate2
import numpy as np

from argosy.artifacts.config_info import read_json_object
from argosy.artifacts.durable import fsync_directory, fsync_file
from argosy.artifacts.locks import held
from argosy.core.errors import SpecError
from argosy.core.model import ModelFiles, ModelFormat
from argosy.engines.seq2seq.t5 import ARCHITECTURES, t5_shape, t5_spec
from argosy.engines.seq2seq.weights import Checkpoint

# Raise when t5.py changes what it writes, so that what the old one made is made again.
RECIPE = 1


def require_convertible(files: ModelFiles) -> None:
    """Raises: SpecError unless this is a family we convert, in safetensors (D-04: never a pickle)."""
    if files.info.architecture not in ARCHITECTURES:
        raise SpecError(
            f"{files.ref} is of the family {files.info.architecture!r}: the seq2seq engine serves "
            f"{', '.join(sorted(ARCHITECTURES))}"
            + ("" if files.info.is_encoder_decoder else "; a decoder-only model is served by --engine openvino or vllm")
        )
    if files.format is not ModelFormat.SAFETENSORS:
        raise SpecError(
            f"{files.ref} holds {files.format} weights: the seq2seq engine reads safetensors; fetch the model in that "
            "format"
        )


async def ensure_converted(
    files: ModelFiles, cache_dir: Path, weight_format: str, on_activity: Callable[[str], None]
) -> Path:
    """The folder CTranslate2 can load, made now if it is not in `cache_dir` yet.

    Cancels: waits for the thread that converts; what it made is kept. Raises: SpecError if the files are wrong.
    """
    target = cache_dir / folder_name(files.digest, weight_format)
    if target.is_dir():
        return target
    await asyncio.to_thread(cache_dir.mkdir, parents=True, exist_ok=True)
    lock = cache_dir / f".{target.name}.lock"
    async with held(lock, on_wait=lambda: on_activity("another process converts the weights")):
        if not target.is_dir():
            on_activity(f"converting the weights to {weight_format}")
            await asyncio.to_thread(_convert, files, target, weight_format)
    on_activity("")
    return target


def folder_name(digest: str, weight_format: str) -> str:
    """Where the conversion lies in the cache. Pure: the same inputs, the same name."""
    facts = f"recipe {RECIPE}\n{digest}\nctranslate2 {ctranslate2.__version__}"
    return f"ctranslate2-{weight_format}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def write_ctranslate2(files: ModelFiles, folder: Path, weight_format: str) -> None:
    """Write the model into an existing folder. Raises: SpecError if config.json and weights do not fit."""
    shape = t5_shape(read_json_object(files.root / "config.json"))
    with np.errstate(over="raise", invalid="raise"):
        spec = t5_spec(shape, Checkpoint(files.weights))
        try:
            spec.validate()
            spec.optimize(quantization=weight_format)
        except (ValueError, FloatingPointError) as error:
            raise SpecError(f"{files.ref} cannot become a CTranslate2 model: {error}; fetch it again") from error
    spec.save(str(folder))


def _convert(files: ModelFiles, target: Path, weight_format: str) -> None:
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        write_ctranslate2(files, aside, weight_format)
        for path in aside.iterdir():
            fsync_file(path)
        aside.rename(target)
        fsync_directory(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
