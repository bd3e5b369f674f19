"""What a file of an archive is, by its first bytes and never by its name (D-04).

Three kinds are refused unless the operator allows them: a pickle runs code when it is read; a TorchScript archive is a
program; a zip inside holds what nobody has looked at, so it is looked at here, and so is the start of a packed file.
Weights come in formats that are numbers alone: safetensors, GGUF.

A pickle of protocol 0 or 1 is plain text without a mark at its start; it is found by parsing, without executing: a
file whose opcodes run from its first byte to a STOP, which stands at its end, or comes after a name was imported and
something called (what follows a STOP is never read, so anything may). Tensors saved by old PyTorch are several pickles
one after the other, then raw numbers; the first of them is a mark of its own.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickletools
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from argosy.artifacts.safe_zip import checked_archive, copy_member
from argosy.core.errors import ArtifactError

HEAD_BYTES = 64
MAX_PARSED_BYTES = 2**24
MAX_OPCODES = 100_000
MAX_DEPTH = 3
_ZIP_MAGIC = b"PK\x03\x04"
# numpy's own: a header of text, of which the type `|O` says that pickles follow.
_NPY_MAGIC = b"\x93NUMPY"
_GGUF_MAGIC = b"GGUF"
_STREAMS: Mapping[bytes, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_ZLIB_MAGICS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_PROTO_OPCODE = 0x80
_HIGHEST_PROTOCOL = 5
# Source: pickletools: GLOBAL, INST, STACK_GLOBAL, EXT1 to EXT4; REDUCE, INST, OBJ, NEWOBJ, NEWOBJ_EX, BUILD.
_IMPORTS = frozenset("ci\x93\x82\x83\x84")
_CALLS = frozenset("Rio\x81\x92b")


class ContentKind(StrEnum):
    """What a file is, as far as it matters for whether it may be loaded."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    PICKLE = "pickle"
    TORCHSCRIPT = "torchscript"
    OTHER = "other"


WEIGHTS = frozenset({ContentKind.SAFETENSORS, ContentKind.GGUF, ContentKind.PICKLE, ContentKind.TORCHSCRIPT})
# What runs code when it is read.
UNSAFE = frozenset({ContentKind.PICKLE, ContentKind.TORCHSCRIPT})


def kind_of(path: Path) -> ContentKind:
    """What the file is. Raises: OSError; ArtifactError for a zip inside that nobody should open."""
    with path.open("rb") as file:
        start = file.read(MAX_PARSED_BYTES)
    size_bytes = path.stat().st_size
    if start.startswith(_ZIP_MAGIC):
        return _kind_of_zip(path, depth=0)
    if start.startswith(_NPY_MAGIC):
        return ContentKind.PICKLE if b"|O" in start[: 2 * HEAD_BYTES] else ContentKind.OTHER
    # Before the formats that hold numbers alone: a pickle can be made to begin like one of them.
    if _runs_as_pickle(start, is_whole=size_bytes <= MAX_PARSED_BYTES):
        return ContentKind.PICKLE
    if start.startswith(_GGUF_MAGIC):
        return ContentKind.GGUF
    if _is_safetensors(start, size_bytes):
        return ContentKind.SAFETENSORS
    if _is_marked(start) or _is_packed_pickle(path, start) or _is_tar_of_pickles(start):
        return ContentKind.PICKLE
    return ContentKind.OTHER


def _is_safetensors(head: bytes, size_bytes: int) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size_bytes - 8


def _runs_as_pickle(start: bytes, *, is_whole: bool) -> bool:
    """Whether opcodes run from the first byte to a STOP. start: as many bytes as are parsed. is_whole: no more come."""
    codes: set[str] = set()
    number = end = 0
    try:
        for number, (opcode, _, position) in enumerate(pickletools.genops(start), start=1):
            codes.add(opcode.code)
            end = position or 0
            if number == MAX_OPCODES:
                return True
    except (ValueError, UnicodeError, OverflowError, IndexError, KeyError):
        # What was read may end in the middle of a long argument, as that of a large array.
        return not is_whole and "(" in codes and not codes.isdisjoint(_IMPORTS)
    if not codes.isdisjoint(_IMPORTS) and not codes.isdisjoint(_CALLS):
        return True
    # One opcode, or text that happens to end at its first '.', is no pickle.
    return is_whole and number > 1 and len(start) > 3 and end >= len(start) - 2


def _is_tar_of_pickles(start: bytes) -> bool:
    """What PyTorch before 0.1.10 wrote: a tar of pickles, without compression."""
    if b"\0" not in start[:HEAD_BYTES]:
        return False
    try:
        with tarfile.open(fileobj=io.BytesIO(start), mode="r:") as archive:
            first = archive.next()
    except (tarfile.TarError, OverflowError, ValueError):
        return False
    return first is not None and first.name.lstrip("./") in ("sys_info", "pickle", "storages", "tensors")


def _is_packed_pickle(path: Path, head: bytes) -> bool:
    """A compressed pickle, as joblib and many scripts write them; only its start is unpacked."""
    opened = next((opener for magic, opener in _STREAMS.items() if head.startswith(magic)), None)
    try:
        if opened is not None:
            with opened(path) as file:
                start = file.read(MAX_PARSED_BYTES)
        elif head[:2] in _ZLIB_MAGICS:
            with path.open("rb") as raw:
                start = zlib.decompressobj().decompress(raw.read(MAX_PARSED_BYTES), MAX_PARSED_BYTES)
        else:
            return False
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
        return False
    return _is_marked(start) or _runs_as_pickle(start, is_whole=len(start) < MAX_PARSED_BYTES)


def _is_marked(head: bytes) -> bool:
    return len(head) >= 2 and head[0] == _PROTO_OPCODE and 2 <= head[1] <= _HIGHEST_PROTOCOL


def _kind_of_zip(path: Path, depth: int) -> ContentKind:
    """A zip inside: PyTorch's own, or a bag that may hold pickles (an .npz, an archive in an archive)."""
    if depth >= MAX_DEPTH:
        raise ArtifactError(f"{path.name} nests zips more than {MAX_DEPTH} deep: unpack the inner ones")
    with checked_archive(path) as archive:
        names = archive.namelist()
        if any(name.rpartition("/")[2] in ("data.pkl", "constants.pkl") for name in names):
            has_code = any("code" in name.split("/")[:2] or name.endswith("/constants.pkl") for name in names)
            return ContentKind.TORCHSCRIPT if has_code else ContentKind.PICKLE
        kinds = {_kind_inside(archive, info, depth) for info in archive.infolist() if not info.is_dir()}
    # The first of these that is among them.
    return next((kind for kind in (ContentKind.PICKLE, ContentKind.TORCHSCRIPT) if kind in kinds), ContentKind.OTHER)


def _kind_inside(archive: zipfile.ZipFile, info: zipfile.ZipInfo, depth: int) -> ContentKind:
    try:
        with archive.open(info) as member:
            start = member.read(MAX_PARSED_BYTES)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error, OSError) as error:
        raise ArtifactError(f"{info.filename!r} inside a zip cannot be read ({error}): make the zip again") from error
    if start.startswith(_NPY_MAGIC):
        return ContentKind.PICKLE if b"|O" in start[: 2 * HEAD_BYTES] else ContentKind.OTHER
    if not start.startswith(_ZIP_MAGIC):
        is_pickle = _is_marked(start) or _runs_as_pickle(start, is_whole=info.file_size <= MAX_PARSED_BYTES)
        return ContentKind.PICKLE if is_pickle else ContentKind.OTHER
    with tempfile.NamedTemporaryFile(suffix=f"-{info.filename.rpartition('/')[2][-40:]}") as inner:
        copy_member(archive, info, inner.file, lambda _: None)
        inner.flush()
        return _kind_of_zip(Path(inner.name), depth + 1)
