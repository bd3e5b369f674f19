"""What an archive's serialized file is, by its content, and whether the base handler may load it (D-04).

safetensors holds numbers and nothing else. A pickle can run any code when it is read, and a TorchScript archive brings
code of its own: both are refused unless the operator allowed that content. The name of a file decides nothing.
"""

from __future__ import annotations

import json
import struct
import zipfile
from enum import StrEnum
from pathlib import Path

from argosy.core.errors import SpecError

_HEADER_SIZE = struct.Struct("<Q")
_MAX_HEADER_BYTES = 100 * 2**20


class WeightsKind(StrEnum):
    """What a file of weights is."""

    SAFETENSORS = "safetensors"
    TORCHSCRIPT = "torchscript"
    PICKLE = "pickle"
    ONNX = "onnx"
    UNKNOWN = "unknown"


def kind_of(path: Path) -> WeightsKind:
    """By the file's first bytes, or the names inside it. Raises: OSError."""
    with path.open("rb") as file:
        head = file.read(_HEADER_SIZE.size + 1)
    if len(head) > _HEADER_SIZE.size and head[-1:] == b"{" and _is_json_header(path, head):
        return WeightsKind.SAFETENSORS
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        is_script = any("/code/" in name or name.endswith("constants.pkl") for name in names)
        return WeightsKind.TORCHSCRIPT if is_script else WeightsKind.PICKLE
    # Protocols 2 and higher begin so; PyTorch's files before 1.6 do, too.
    if head[:1] == b"\x80":
        return WeightsKind.PICKLE
    return WeightsKind.ONNX if path.suffix == ".onnx" else WeightsKind.UNKNOWN


def check_allowed(path: Path, allowed: frozenset[str]) -> WeightsKind:
    """What the file is. Raises: SpecError if it could run code and that is not allowed, or nothing can load it."""
    if not path.is_file():
        raise SpecError(f"the archive has no file {path.name}, which its manifest names as its weights")
    kind = kind_of(path)
    if kind is WeightsKind.UNKNOWN:
        raise SpecError(f"{path.name} is neither safetensors nor another form of weights that can be loaded")
    if kind in (WeightsKind.PICKLE, WeightsKind.TORCHSCRIPT) and kind.value not in allowed:
        remedy = "convert the archive with `argosy archive convert X.mar -o Y.mar`"
        if kind is WeightsKind.PICKLE:
            raise SpecError(f"{path.name} holds pickled weights, which can run any code when they are read: {remedy}")
        raise SpecError(
            f"{path.name} holds TorchScript, which is code: {remedy}, "
            "or start the server with --allow-content torchscript"
        )
    return kind


def _is_json_header(path: Path, head: bytes) -> bool:
    (size,) = _HEADER_SIZE.unpack(head[: _HEADER_SIZE.size])
    if not 2 <= size <= min(_MAX_HEADER_BYTES, path.stat().st_size):
        return False
    with path.open("rb") as file:
        file.seek(_HEADER_SIZE.size)
        try:
            return isinstance(json.loads(file.read(size)), dict)
        except ValueError:
            return False
