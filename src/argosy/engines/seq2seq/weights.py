"""The tensors of a safetensors checkpoint as float32 arrays, by name, without torch.

The header has been checked (`artifacts.safetensors`), so a tensor is a slice of the file. bfloat16 is the upper half of
a float32, which is all there is to reading it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from argosy.artifacts.safetensors import SafetensorsFile, TensorHeader, read_safetensors
from argosy.core.errors import SpecError

Weight = npt.NDArray[np.float32]

_NUMPY_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class Checkpoint:
    """Tensors of one model, read when asked for. Shapes: as in the file."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises: SpecError if a header is wrong."""
        self._places: dict[str, tuple[SafetensorsFile, TensorHeader]] = {}
        for path in paths:
            header = read_safetensors(path)
            self._places |= {tensor.name: (header, tensor) for tensor in header.tensors}

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def weight(self, name: str, shape: tuple[int, ...]) -> Weight:
        """The tensor `name`, which must have this shape. Raises: SpecError saying what is there instead."""
        if name not in self._places:
            raise SpecError(f"the weights hold no tensor {name!r}: this is not the model its config.json says it is")
        header, tensor = self._places[name]
        if tensor.shape != shape:
            raise SpecError(
                f"{header.path.name}: {name!r} has the shape {list(tensor.shape)}, and config.json asks for "
                f"{list(shape)}: fetch the model again"
            )
        return _read(header, tensor)


def _read(header: SafetensorsFile, tensor: TensorHeader) -> Weight:
    kind = _NUMPY_TYPES.get(tensor.dtype)
    if kind is None:
        raise SpecError(
            f"{header.path.name}: {tensor.name!r} holds {tensor.dtype} numbers; {', '.join(_NUMPY_TYPES)} can be read: "
            "fetch the checkpoint that is not quantised"
        )
    start = header.path.stat().st_size - header.data_bytes + tensor.begin
    stored: npt.NDArray[Any] = np.fromfile(header.path, kind, tensor.num_elements, offset=start).reshape(tensor.shape)
    if tensor.dtype == "BF16":
        widened: Weight = (stored.astype(np.uint32) << 16).view(np.float32)
        return widened
    return np.asarray(stored, np.float32)
