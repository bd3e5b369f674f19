"""The head of a safetensors file, read safely: names, types, shapes and offsets, never a weight (D-08).

Layout: 8 bytes of header size (little endian), that many bytes of JSON, then the data that the JSON's offsets cut
up, without holes or overlaps. Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from argosy.core.errors import SpecError

# The crate allows 100 MB; the largest real headers hold some 2 MB, and decoding costs ten times its size.
MAX_HEADER_BYTES = 32 * 2**20
MAX_TENSORS = 1_000_000
MAX_DIMENSIONS = 8
MAX_TENSOR_BYTES = 2**46
# Bits per element. Source: enum Dtype of the safetensors crate.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


class TensorHeader(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor: its type as the file writes it, its shape, and its place counted from the start of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def num_elements(self) -> int:
        """The product of the shape."""
        product = 1
        for dimension in self.shape:
            product *= dimension
        return product


class SafetensorsFile(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a safetensors file."""

    path: Path
    tensors: tuple[TensorHeader, ...]
    metadata: Mapping[str, str]
    data_bytes: int


def read_safetensors(path: Path) -> SafetensorsFile:
    """The header of a safetensors file, checked against the file it describes.

    Raises: SpecError naming the field and its value; OSError if the file cannot be read.
    """
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(MAX_HEADER_BYTES, file_bytes - 8):
            limit = min(MAX_HEADER_BYTES, max(file_bytes - 8, 0))
            raise _wrong(path, "header size", size, f"must be in [2, {limit}]")
        text = file.read(size)
    data_bytes = file_bytes - 8 - size
    header = _decoded(path, text)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _wrong(path, "__metadata__", metadata, "must be a map of strings")
    if not 1 <= len(header) <= MAX_TENSORS:
        raise _wrong(path, "number of tensors", len(header), f"must be in [1, {MAX_TENSORS}]")
    tensors = tuple(_tensor(path, name, row, data_bytes) for name, row in header.items())
    _check_places(path, tensors, data_bytes)
    return SafetensorsFile(path=path, tensors=tensors, metadata=metadata, data_bytes=data_bytes)


def _decoded(path: Path, text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for name, value in pairs:
            if name in table:
                raise _wrong(path, name, "twice", "every name may stand once")
            table[name] = value
        return table

    try:
        header = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, "header", str(error), "must be JSON") from error
    if not isinstance(header, dict):
        raise _wrong(path, "header", header, "must be a JSON object")
    return header


def _tensor(path: Path, name: str, row: Any, data_bytes: int) -> TensorHeader:
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise _wrong(path, name, row, "must have dtype, shape and data_offsets")
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _wrong(path, f"{name}.dtype", dtype, "is no tensor type we know")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise _wrong(path, f"{name}.shape", shape, f"must be at most {MAX_DIMENSIONS} non-negative integers")
    if not _are_sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= data_bytes:
        raise _wrong(path, f"{name}.data_offsets", offsets, f"must lie inside the data ({data_bytes} bytes)")
    tensor = TensorHeader(name=name, dtype=dtype, shape=tuple(shape), begin=offsets[0], end=offsets[1])
    expected_bits = tensor.num_elements * DTYPE_BITS[dtype]
    if expected_bits != 8 * (tensor.end - tensor.begin):
        rule = f"shape {tuple(shape)} of {dtype} takes {expected_bits // 8} bytes"
        raise _wrong(path, f"{name}.data_offsets", offsets, rule)
    return tensor


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= MAX_TENSOR_BYTES for value in values)


def _check_places(path: Path, tensors: tuple[TensorHeader, ...], data_bytes: int) -> None:
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != end:
            rule = "overlaps another tensor" if tensor.begin < end else f"leaves a hole after byte {end}"
            raise _wrong(path, f"{tensor.name}.data_offsets", [tensor.begin, tensor.end], rule)
        end = tensor.end
    if end != data_bytes:
        raise _wrong(path, "data", f"{data_bytes} bytes", f"the tensors take {end}: the file is cut short or padded")


def _wrong(path: Path, field: str, value: object, rule: str) -> SpecError:
    shown = value if isinstance(value, str) else repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    where = field if len(field) <= 120 else field[:117] + "..."
    return SpecError(f"{path.name}: {where!r} is {shown}: {rule}; fetch the model again, or from another source")
