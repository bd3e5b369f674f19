"""Files that survive a crash: written aside, flushed, renamed, and the directory flushed too.

A reader therefore sees the old file or the new one, whole, whenever the power goes. A full disk becomes one kind of
error that says how much is missing, wherever the write happened.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from argosy.core.errors import ArtifactError

CHUNK_BYTES = 4 * 2**20
SPARE_BYTES = 64 * 2**20  # left free for everybody else on the disk


def fsync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make the bytes of `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, all or nothing. Raises: OSError; nothing is left behind."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def sha256_of(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The digest of a file's bytes, as `sha256:…`."""
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(view[:size])
            if on_bytes is not None:
                on_bytes(size)
    return f"sha256:{digest.hexdigest()}"


def require_space(directory: Path, needed_bytes: int) -> None:
    """Return if `needed_bytes` more fit on the disk of `directory`. Raises: ArtifactError saying what is missing."""
    free = shutil.disk_usage(directory).free
    if free < needed_bytes + SPARE_BYTES:
        raise _disk_full(directory, needed_bytes, free)


@contextmanager
def disk_full_means(directory: Path, needed_bytes: int) -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" inside the block into the ArtifactError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _disk_full(directory, needed_bytes, shutil.disk_usage(directory).free) from error


def _disk_full(directory: Path, needed_bytes: int, free_bytes: int) -> ArtifactError:
    return ArtifactError(
        f"the disk of {directory} is full: {needed_bytes:,} bytes are needed and {free_bytes:,} are free "
        f"({SPARE_BYTES:,} stay in reserve); free some with `argosy models gc` or `argosy models rm NAME`, "
        "then pull again"
    )
