"""What the store knows of one model: a JSON file per reference, and the types inside it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import msgspec

from argosy.core.model import ModelFormat, ModelInfo, ModelRef

MANIFEST_VERSION = 2


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model and how it looked when its digest was last computed.

    path: relative to the model's root, with '/'. modified_ns and inode: as long as both and the size are unchanged,
    the bytes are taken to be; the full hash is for `verify` and for when they differ.
    """

    path: str
    sha256: str
    size_bytes: int
    modified_ns: int
    inode: int

    def matches(self, status: os.stat_result) -> bool:
        """Whether the file on disk looks as it did when it was hashed."""
        return (
            status.st_size == self.size_bytes and status.st_mtime_ns == self.modified_ns and status.st_ino == self.inode
        )


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One model in the store.

    ref: as asked for. resolved: what it was at that time, with its revision or version.
    root: the directory of the files. is_external: the files are the user's own, outside the store.
    digest: of all files together (see `model_digest`). created: unix seconds.
    """

    version: int
    ref: ModelRef
    resolved: ModelRef
    root: str
    is_external: bool
    format: ModelFormat
    info: ModelInfo
    weights: tuple[str, ...]
    files: tuple[FileRecord, ...]
    digest: str
    created: int

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)


def model_digest(files: tuple[FileRecord, ...]) -> str:
    """One digest for a set of named contents: the SHA-256 of their sorted `sha256  path` lines.

    Source: the line format of sha256sum.
    """
    lines = sorted(f"{file.sha256.removeprefix('sha256:')}  {file.path}\n" for file in files)
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def record_of(path: Path, name: str, sha256: str) -> FileRecord:
    """The record of a file that was just hashed."""
    status = path.stat()
    return FileRecord(
        path=name,
        sha256=sha256,
        size_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        inode=status.st_ino,
    )


def manifest_name(ref: ModelRef) -> str:
    """A file name for the reference: readable, one safe path component, and different for different references."""
    text = str(ref)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[-64:].lstrip("-.")
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
