"""The process that reads one pickle and writes one safetensors file: `python -I -m …conversion_child SOURCE TARGET`.

It takes away its own rights before it opens the file: little time, memory and disk, no new privileges, no network, no
other file for writing, no other program. The reader (`torch_pickle.py`) lets a pickle do nothing anyway; this is for
the fault in it that nobody has found. One line of JSON on stdout says what became of it.
"""

from __future__ import annotations

import codecs
import ctypes
import json
import mmap
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec

from argosy.artifacts.archives.torch_pickle import SavedWeights, TensorView, read_weights
from argosy.artifacts.durable import CHUNK_BYTES
from argosy.artifacts.safetensors import DTYPE_BITS
from argosy.core.errors import SpecError

# Source: linux/prctl.h, linux/sched.h.
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
MEMORY_BYTES = 4 * 2**30
NUM_FILES = 32
# A tensor may stand in the file under several names (tied weights) and is written under each.
MAX_GROWTH = 8
SPARE_BYTES = 64 * 2**20
_CASTS = {8: "B", 16: "H", 32: "I", 64: "Q"}
# Audit events of what a converter never does. Source: the audit events table of the Python documentation.
_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.",
    "pty.",
    "shutil.",
    "ctypes.",
    "import",
    "exec",
    "compile",
)


def main(arguments: list[str]) -> int:
    """Convert; the exit code is 0 if the target was written."""
    source, target = Path(arguments[0]), Path(arguments[1])
    codecs.lookup("cp437")  # names in a zip may be in it, and afterwards nothing can be imported
    try:
        _confine(source, target)
        answer = _convert(source, target)
    except SpecError as error:
        answer = {"error": error.message}
    except MemoryError:
        answer = {"error": f"it needs more than {MEMORY_BYTES >> 30} GiB of memory to be read"}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


def _confine(source: Path, target: Path) -> None:
    """Give up what the work does not need. What a kernel does not let go of is held by the audit hook."""
    size = source.stat().st_size
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, MAX_GROWTH * size + SPARE_BYTES),
        (resource.RLIMIT_NOFILE, NUM_FILES),
        (resource.RLIMIT_CPU, 60 + size // (20 * 2**20)),
    ):
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    # After unshare, which may count as a process. No thread or program is started from here on.
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    allowed = {str(source), str(target)}

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            raise SpecError(f"the conversion tried {event!r}: the file is hostile; do not use it")
        if event == "open" and (str(details[0]) not in allowed):
            raise SpecError("the conversion tried to open another file: the file is hostile; do not use it")

    sys.addaudithook(hook)


def _convert(source: Path, target: Path) -> dict[str, Any]:
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        weights = read_weights(source, mapped)
        written = _write(weights, memoryview(mapped), target)
    return {"tensors": len(weights.tensors), "bytes": written, "dropped": list(weights.dropped)}


def _write(weights: SavedWeights, source: memoryview, target: Path) -> int:
    """Write the tensors, largest elements first, so that every one is aligned. Returns the bytes of data."""
    rows = sorted(weights.tensors.items(), key=lambda row: (-DTYPE_BITS[row[1].dtype], row[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, view in rows:
        begin, end = end, end + view.num_elements * DTYPE_BITS[view.dtype] // 8
        header[name] = {"dtype": view.dtype, "shape": view.shape, "data_offsets": (begin, end)}
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, view in rows:
            begin, size = weights.storages[view.storage.key]
            with source[begin : begin + size] as storage:
                for piece in _pieces(storage, view):
                    file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return end


def _pieces(storage: memoryview, view: TensorView) -> Iterator[memoryview | bytes]:
    """The tensor's bytes in order: one slice if it lies so, else run by run."""
    item = DTYPE_BITS[view.dtype] // 8
    shape, strides = _merged(view.shape, view.strides)
    if not view.num_elements:
        return
    if strides == (1,):
        begin, end = view.offset * item, (view.offset + shape[0]) * item
        for at in range(begin, end, CHUNK_BYTES):
            yield storage[at : min(at + CHUNK_BYTES, end)]
        return
    usable = len(storage) // item * item
    elements = cast("Any", storage[:usable]).cast(_CASTS[DTYPE_BITS[view.dtype]])
    for offset in _offsets(view.offset, shape[:-1], strides[:-1]):
        count, stride = shape[-1], strides[-1]
        if stride:
            yield elements[offset : offset + (count - 1) * stride + 1 : stride].tobytes()
        else:
            yield elements[offset : offset + 1].tobytes() * count


def _merged(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same elements in the same order with as few dimensions as can be."""
    merged: list[tuple[int, int]] = []
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == stride * size:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    if not merged:
        return (1,), (1,)
    return tuple(size for size, _ in merged), tuple(stride for _, stride in merged)


def _offsets(begin: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Iterator[int]:
    if not shape:
        yield begin
        return
    for index in range(shape[0]):
        yield from _offsets(begin + index * strides[0], shape[1:], strides[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
