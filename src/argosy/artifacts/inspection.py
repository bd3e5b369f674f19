"""What lies in a model's directory: its format, its weight files, its facts, all from headers we read ourselves.

This is the gate before every native loader: nothing is loaded, converted or served that did not pass here.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from argosy.artifacts.config_info import config_info
from argosy.artifacts.gguf_info import gguf_info
from argosy.artifacts.safetensors import read_safetensors
from argosy.core.errors import SpecError
from argosy.core.gguf import read_gguf
from argosy.core.model import ModelFormat, ModelInfo

# Files whose loading runs code from the file. Source: PyTorch and NumPy documentation, "pickle".
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".mar", ".joblib")
OPENVINO_MODEL = "openvino_model.xml"


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """A model's format and facts. weights: names of weight files, relative to its directory."""

    format: ModelFormat
    weights: tuple[str, ...]
    info: ModelInfo


def inspect_model(root: Path, names: tuple[str, ...]) -> Inspection:
    """Look at the files `names` below `root`. Raises: SpecError naming file, field, value and remedy."""
    ggufs = tuple(sorted(name for name in names if name.endswith(".gguf")))
    tensors = tuple(sorted(name for name in names if name.endswith(".safetensors")))
    if OPENVINO_MODEL in names:
        return _inspect_openvino(root, names)
    if len(ggufs) == 1:
        return Inspection(format=ModelFormat.GGUF, weights=ggufs, info=gguf_info(read_gguf(root / ggufs[0])))
    if ggufs:
        raise SpecError(f"{len(ggufs)} GGUF files ({', '.join(ggufs[:8])}): name one of them, as …/{ggufs[0]}")
    if tensors:
        headers = tuple(read_safetensors(root / name) for name in tensors)
        info = config_info(root, headers)
        return Inspection(format=ModelFormat.SAFETENSORS, weights=tensors, info=info)
    raise refusal(names)


def refusal(names: tuple[str, ...]) -> SpecError:
    """Why a set of files is no model: a pickle (D-04), or nothing we know."""
    pickles = [name for name in names if name.lower().endswith(PICKLE_SUFFIXES)]
    if pickles:
        return SpecError(
            f"{pickles[0]!r} is a Python pickle: loading it would run code from the file, so Argosy never does; "
            "use a repository with .safetensors or .gguf files, or convert it on a machine you can lose"
        )
    return SpecError(
        f"no model among {len(names)} files ({', '.join(sorted(names)[:8]) or 'none'}): there must be one .gguf file, "
        f".safetensors files with config.json, or {OPENVINO_MODEL}"
    )


def _inspect_openvino(root: Path, names: tuple[str, ...]) -> Inspection:
    weights = OPENVINO_MODEL.replace(".xml", ".bin")
    if weights not in names:
        raise SpecError(f"{OPENVINO_MODEL} has no {weights} beside it: convert the model again")
    info = config_info(root, (), weight_bytes=(root / weights).stat().st_size)
    return Inspection(format=ModelFormat.OPENVINO, weights=(OPENVINO_MODEL, weights), info=info)
