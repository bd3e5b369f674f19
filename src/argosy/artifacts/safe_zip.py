"""Reading members of an archive that a stranger made (D-03, D-05): checked whole before one byte comes out.

Nothing is ever extracted by the name the archive gives: callers take a member's bytes to a path of their own. The
checks refuse the archive, not the member, since an archive with one bad name was not made in good faith.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from argosy.artifacts.durable import CHUNK_BYTES
from argosy.core.errors import ArtifactError

MAX_MEMBERS = 10_000
MAX_TOTAL_BYTES = 2**40
MAX_RATIO = 200  # text compresses 10-fold, zeros 1000-fold, weights hardly at all
RATIO_FREE_BYTES = 2**20
MAX_NAME_CHARS = 512
MAX_PART_BYTES = 255  # the longest name a Linux file system takes
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
# All that zipfile raises for bytes that are not what they should be; tried by mutation.
_DAMAGE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    UnicodeDecodeError,
)


@contextmanager
def checked_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An open archive whose every member is harmless. Raises: ArtifactError naming the member and what is wrong."""
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise ArtifactError(f"{path.name} is not a whole archive ({error}): fetch it again", retryable=True) from error
    with archive:
        _check_members(path, archive.infolist())
        yield archive


def copy_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: IO[bytes], on_bytes: Callable[[int], None]
) -> str:
    """Append a member's bytes to `target`, at most as many as it declares. Returns their digest.

    Raises: ArtifactError if it is damaged; OSError if they cannot be written.
    """
    digest = hashlib.sha256()
    try:
        with archive.open(member) as source:
            left = member.file_size
            while left and (piece := source.read(min(CHUNK_BYTES, left))):
                left -= len(piece)
                digest.update(piece)
                target.write(piece)
                on_bytes(len(piece))
    except _DAMAGE as error:
        raise ArtifactError(
            f"member {member.filename!r} is damaged ({error}): fetch it again", retryable=True
        ) from error
    if left:
        raise ArtifactError(f"member {member.filename!r} ends {left} bytes early: fetch it again", retryable=True)
    return f"sha256:{digest.hexdigest()}"


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS:
        raise ArtifactError(f"{path.name} has {len(members)} members, may have {MAX_MEMBERS}: it is refused")
    seen: set[str] = set()
    for member in members:
        fault = _fault(member)
        folded = member.filename.casefold().rstrip("/")
        if fault is None and folded in seen:
            fault = "stands twice, or differs from another name by case only"
        if fault is not None:
            raise ArtifactError(f"{path.name}: member {member.filename[:120]!r} {fault}: the archive is refused")
        seen.add(folded)
    total = sum(member.file_size for member in members)
    # Members may be made to overlap, each within its ratio: what all of them become counts too.
    most = min(MAX_TOTAL_BYTES, RATIO_FREE_BYTES + MAX_RATIO * path.stat().st_size)
    if total > most:
        raise ArtifactError(f"{path.name} unpacks to {total} bytes, may be {most}: it is refused")


def name_fault(name: str) -> str | None:
    """What is wrong with a member's name, or None. Directories may end with a slash."""
    parts = name.rstrip("/").split("/")
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        return f"has a name that is empty, unprintable or longer than {MAX_NAME_CHARS} characters"
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"has a name with a part longer than {MAX_PART_BYTES} bytes"
    if name.startswith("/") or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        return "has a name that leads out of the archive"
    return None


def _fault(member: zipfile.ZipInfo) -> str | None:
    if fault := name_fault(member.orig_filename):  # the name before zipfile cut it at a NUL
        return fault
    if member.header_offset < 0:
        return "begins before the archive does"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
        return "is encrypted or packed by a method we do not read"
    if member.file_size > RATIO_FREE_BYTES and member.file_size > MAX_RATIO * max(member.compress_size, 1):
        return f"unpacks {member.compress_size} bytes to {member.file_size}, more than {MAX_RATIO} times"
    return None
