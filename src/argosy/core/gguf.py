"""The head of a GGUF file, read safely: its metadata and its tensor table, never a weight.

A GGUF file comes from a stranger, and the native loaders that read it trust its numbers (D-07; "Bleeding Llama",
CVE-2026-7482: a tensor table that points past the end of the file). So every model passes through here first.
The law of this file: each count, length and offset is compared with the bytes that are really there *before*
anything is allocated or skipped by it. What fails is a `SpecError` naming the field and its value; a file that
passes has tensors that lie inside it, aligned, apart from each other, with dimensions that do not overflow.

It is also on the start-up path, and the vocabulary of a small model already holds 10^5 strings. So the file is
not mapped or read whole: one buffer grows as the head is walked, arrays of numbers are unpacked in one call, and
strings in one tight loop.

Layout (little endian): magic, version, tensor count, key count; key-value pairs; tensor table; padding; data.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from argosy.core.errors import SpecError

GgufValue = int | float | bool | str | tuple[int, ...] | tuple[float, ...] | tuple[bool, ...] | tuple[str, ...]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
# Limits far above any real model (the largest vocabularies hold 262,144 tokens and 514,906 merges in 20 MB; the
# largest models have some thousands of tensors) and far below what would hurt: strings cost about 60 bytes each.
MAX_HEAD_BYTES = 64 * 2**20
MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_ARRAY_ITEMS = 4_000_000
MAX_NAME_BYTES = 65_535
MAX_TENSOR_NAME_BYTES = 127
MAX_DIMENSIONS = 4
MAX_TENSOR_BYTES = 2**46
MAX_ALIGNMENT = 65_536

_STRING, _ARRAY, _BOOL = 8, 9, 7
# type id -> (struct letter, bytes). Source: enum gguf_metadata_value_type.
_SCALARS: Mapping[int, tuple[str, int]] = {
    0: ("B", 1),
    1: ("b", 1),
    2: ("H", 2),
    3: ("h", 2),
    4: ("I", 4),
    5: ("i", 4),
    6: ("f", 4),
    7: ("B", 1),
    10: ("Q", 8),
    11: ("q", 8),
    12: ("d", 8),
}
# tensor type id -> (name, elements per block, bytes per block). Source: GGML_QUANT_SIZES of gguf-py 0.17.
_TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("f32", 1, 4),
    1: ("f16", 1, 2),
    2: ("q4_0", 32, 18),
    3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24),
    8: ("q8_0", 32, 34),
    10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210),
    16: ("iq2_xxs", 256, 66),
    17: ("iq2_xs", 256, 74),
    18: ("iq3_xxs", 256, 98),
    19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110),
    22: ("iq2_s", 256, 82),
    23: ("iq4_xs", 256, 136),
    24: ("i8", 1, 1),
    25: ("i16", 1, 2),
    26: ("i32", 1, 4),
    27: ("i64", 1, 8),
    28: ("f64", 1, 8),
    29: ("iq1_m", 256, 56),
    30: ("bf16", 1, 2),
    34: ("tq1_0", 256, 54),
    35: ("tq2_0", 256, 66),
    39: ("mxfp4", 32, 17),
    40: ("nvfp4", 64, 36),
    41: ("q1_0", 128, 18),
}


class GgufTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the tensor table. shape: GGUF order, the fastest-varying dimension first. offset: in the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size_bytes: int

    @property
    def num_elements(self) -> int:
        """The product of the shape."""
        product = 1
        for dimension in self.shape:
            product *= dimension
        return product


class GgufFile(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a GGUF file. data_offset: where tensor data begins, in bytes from the start of the file."""

    path: Path
    version: int
    metadata: Mapping[str, GgufValue]
    tensors: tuple[GgufTensor, ...]
    data_offset: int
    file_bytes: int

    def text(self, key: str, default: str | None = None) -> str | None:
        """The string under `key`, or the default. Raises: SpecError if it is something else."""
        value = self.metadata.get(key, default)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, value, "must be a string")
        return value

    def integer(self, key: str, default: int | None = None) -> int | None:
        """The integer under `key`, or the default. Raises: SpecError if it is something else."""
        value = self.metadata.get(key, default)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self.wrong(key, value, "must be an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float | None:
        """The number under `key`, or the default. Raises: SpecError if it is something else."""
        value = self.metadata.get(key, default)
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise self.wrong(key, value, "must be a number")
        return value

    def strings(self, key: str) -> tuple[str, ...] | None:
        """The array of strings under `key`, or None. Raises: SpecError if it is something else."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, tuple) or (value and not isinstance(value[0], str)):
            raise self.wrong(key, value, "must be an array of strings")
        return value  # type: ignore[return-value]  # arrays hold one type each, so the first item tells

    def wrong(self, field: str, value: object, rule: str) -> SpecError:
        """The error that says which field of this file is wrong, how, and what to do."""
        return _wrong(self.path, field, value, rule)


def read_gguf(path: Path) -> GgufFile:
    """The metadata and tensor table of a GGUF file, checked against the file they describe.

    Raises: SpecError naming the field and its value; OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        head = _Head(path, file)
        magic = head.take(4, "magic")
        if magic != MAGIC:
            raise head.wrong("magic", magic, f"must be {MAGIC!r}: this is not a GGUF file")
        version = head.unsigned32("version")
        if version not in VERSIONS:
            raise head.wrong("version", version, "must be 2 or 3 (little endian)")
        num_tensors = head.count("tensor_count", MAX_TENSORS, 24)
        num_keys = head.count("metadata_kv_count", MAX_KEYS, 13)
        metadata = _read_metadata(head, num_keys)
        alignment = _alignment(head, metadata)
        rows = [_read_tensor(head, index) for index in range(num_tensors)]
        data_offset = -(-head.position // alignment) * alignment
        tensors = _placed(head, rows, data_offset, alignment)
        return GgufFile(
            path=path,
            version=version,
            metadata=MappingProxyType(metadata),
            tensors=tensors,
            data_offset=data_offset,
            file_bytes=head.file_bytes,
        )


class _Head:
    """A cursor over the head of the file: a buffer that grows as far as the head reaches, never further."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.file_bytes = path.stat().st_size
        self.buffer = b""
        self.position = 0
        self.num_items = 0

    def wrong(self, field: str, value: object, rule: str) -> SpecError:
        return _wrong(self.path, field, value, rule)

    def reach(self, end: int, field: str) -> bytes:
        """The buffer, holding at least `end` bytes. Raises: SpecError if the file or the limit ends before."""
        if end <= len(self.buffer):
            return self.buffer
        if end > self.file_bytes:
            raise self.wrong(field, f"{end - self.position} bytes", f"ends past the file ({self.file_bytes} bytes)")
        if end > MAX_HEAD_BYTES:
            raise self.wrong(field, f"ends at byte {end}", f"the head may hold at most {MAX_HEAD_BYTES} bytes")
        wanted = min(max(end, 2 * len(self.buffer), 2**20), MAX_HEAD_BYTES)
        self.buffer += self.file.read(wanted - len(self.buffer))
        if end > len(self.buffer):
            raise self.wrong(field, f"byte {end}", "the file was cut short while it was read")
        return self.buffer

    def take(self, size: int, field: str) -> bytes:
        end = self.position + size
        taken = self.reach(end, field)[self.position : end]
        self.position = end
        return taken

    def unsigned32(self, field: str) -> int:
        return int.from_bytes(self.take(4, field), "little")

    def unsigned64(self, field: str) -> int:
        return int.from_bytes(self.take(8, field), "little")

    def count(self, field: str, limit: int, item_bytes: int) -> int:
        """A count that is below its limit and whose items, of at least `item_bytes` each, fit into the file."""
        value = self.unsigned64(field)
        if value > limit:
            raise self.wrong(field, value, f"may be at most {limit}")
        if self.position + value * item_bytes > self.file_bytes:
            raise self.wrong(field, value, f"needs more bytes than the file has ({self.file_bytes})")
        return value

    def string(self, field: str, max_bytes: int = MAX_HEAD_BYTES) -> str:
        size = self.unsigned64(field)
        if size > max_bytes:
            raise self.wrong(field, f"a string of {size} bytes", f"may hold at most {max_bytes} bytes")
        try:
            return self.take(size, field).decode()
        except UnicodeDecodeError as error:
            raise self.wrong(field, f"byte {error.start}", "must be UTF-8") from error

    def strings(self, field: str, count: int) -> tuple[str, ...]:
        """`count` strings, in one loop over local names: this is most of the time of reading a vocabulary."""
        found: list[str] = []
        append = found.append
        buffer, end, position = self.buffer, len(self.buffer), self.position
        length_of = struct.Struct("<Q").unpack_from
        try:
            for _ in range(count):
                start = position + 8
                if start > end:
                    buffer = self.reach(start, field)
                    end = len(buffer)
                position = start + length_of(buffer, position)[0]
                if position > end:
                    self.position = start
                    buffer = self.reach(position, field)
                    end = len(buffer)
                append(buffer[start:position].decode())
        except UnicodeDecodeError as error:
            raise self.wrong(f"{field}[{len(found)}]", error.object[:20], "must be UTF-8") from error
        self.position = position
        return tuple(found)


def _read_metadata(head: _Head, num_keys: int) -> dict[str, GgufValue]:
    metadata: dict[str, GgufValue] = {}
    for index in range(num_keys):
        key = head.string(f"metadata[{index}].key", MAX_NAME_BYTES)
        if key in metadata:
            raise head.wrong(key, "twice", "every key may stand once")
        metadata[key] = _read_value(head, key, head.unsigned32(f"{key}.type"))
    return metadata


def _read_value(head: _Head, key: str, type_id: int) -> GgufValue:
    if type_id == _STRING:
        return head.string(key)
    if type_id == _ARRAY:
        return _read_array(head, key)
    if type_id not in _SCALARS:
        raise head.wrong(f"{key}.type", type_id, "is no GGUF value type")
    letter, size = _SCALARS[type_id]
    value: int | float = struct.unpack("<" + letter, head.take(size, key))[0]
    return _boolean(head, key, value) if type_id == _BOOL else value


def _read_array(head: _Head, key: str) -> GgufValue:
    type_id = head.unsigned32(f"{key}.type")
    if type_id != _STRING and type_id not in _SCALARS:
        raise head.wrong(f"{key}.type", type_id, "an array must hold strings, numbers or booleans")
    letter, size = _SCALARS.get(type_id, ("", 8))
    count = head.count(f"{key}.length", MAX_ARRAY_ITEMS - head.num_items, size)
    head.num_items += count
    if type_id == _STRING:
        return head.strings(key, count)
    values: tuple[int, ...] = struct.unpack(f"<{count}{letter}", head.take(count * size, key))
    if type_id == _BOOL:
        return tuple(_boolean(head, key, value) for value in values)
    return values


def _boolean(head: _Head, key: str, value: int | float) -> bool:
    if value not in (0, 1):
        raise head.wrong(key, value, "a boolean must be 0 or 1")
    return value == 1


def _alignment(head: _Head, metadata: Mapping[str, GgufValue]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(value) is not int or not 8 <= value <= MAX_ALIGNMENT or value & (value - 1):
        raise head.wrong("general.alignment", value, f"must be a power of two in [8, {MAX_ALIGNMENT}]")
    return value


def _read_tensor(head: _Head, index: int) -> GgufTensor:
    """One row as it stands: its offset still counts from the start of the data."""
    name = head.string(f"tensor[{index}].name", MAX_TENSOR_NAME_BYTES)
    num_dimensions = head.unsigned32(f"{name}.n_dimensions")
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        raise head.wrong(f"{name}.n_dimensions", num_dimensions, f"must be in [1, {MAX_DIMENSIONS}]")
    shape = struct.unpack(f"<{num_dimensions}Q", head.take(8 * num_dimensions, f"{name}.dimensions"))
    type_id = head.unsigned32(f"{name}.type")
    if type_id not in _TENSOR_TYPES:
        raise head.wrong(f"{name}.type", type_id, "is no tensor type we know")
    type_, block, block_bytes = _TENSOR_TYPES[type_id]
    if min(shape) < 1 or shape[0] % block:
        raise head.wrong(f"{name}.dimensions", shape, f"must be positive, the first a multiple of {block} ({type_})")
    num_elements = 1
    for dimension in shape:
        num_elements *= dimension  # Python integers do not overflow; the limit below is what C would need
    size_bytes = num_elements // block * block_bytes
    if size_bytes > MAX_TENSOR_BYTES:
        raise head.wrong(f"{name}.dimensions", shape, f"a tensor may hold at most {MAX_TENSOR_BYTES} bytes")
    offset = head.unsigned64(f"{name}.offset")
    return GgufTensor(name=name, shape=shape, type=type_, offset=offset, size_bytes=size_bytes)


def _placed(head: _Head, rows: list[GgufTensor], data_offset: int, alignment: int) -> tuple[GgufTensor, ...]:
    """The rows with offsets in the file: inside it, aligned, named once, apart from each other."""
    names: set[str] = set()
    placed = []
    for row in rows:
        if row.name in names:
            raise head.wrong(row.name, "twice", "every tensor name may stand once")
        names.add(row.name)
        if row.offset % alignment:
            raise head.wrong(f"{row.name}.offset", row.offset, f"must be a multiple of {alignment}")
        offset = data_offset + row.offset
        if offset + row.size_bytes > head.file_bytes:
            raise head.wrong(
                f"{row.name}.offset",
                row.offset,
                f"the tensor ends at byte {offset + row.size_bytes}, past the file ({head.file_bytes} bytes)",
            )
        placed.append(msgspec.structs.replace(row, offset=offset))
    end, before = 0, ""
    for tensor in sorted(placed, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise head.wrong(f"{tensor.name}.offset", tensor.offset, f"overlaps tensor {before!r}")
        end, before = tensor.offset + tensor.size_bytes, tensor.name
    return tuple(placed)


def _wrong(path: Path, field: str, value: object, rule: str) -> SpecError:
    shown = repr(value) if not isinstance(value, str) else value
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    where = field if len(field) <= 120 else field[:117] + "..."
    return SpecError(f"{path.name}: {where!r} is {shown}: {rule}; fetch the model again, or from another source")
