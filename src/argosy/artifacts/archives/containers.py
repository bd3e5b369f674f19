"""The forms of an archive, made to look alike: a series of members with safe names and bounded sizes (D-03, D-05).

`default` and `zip-store` are zips, `tgz` a gzipped tar, `no-archive` a directory; which one a path is, its content
says, not its name. A zip is checked whole before one byte comes out. A tar has no table of contents, so it is checked
member by member while it streams; whoever writes what comes out does so aside, and throws it away when one is bad.

Source: model-archiver of TorchServe 0.12, `model_packaging_utils.archive`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, BinaryIO

import msgspec

from argosy.artifacts.durable import CHUNK_BYTES
from argosy.artifacts.safe_zip import (
    MAX_MEMBERS,
    MAX_RATIO,
    MAX_TOTAL_BYTES,
    RATIO_FREE_BYTES,
    checked_archive,
    copy_member,
    name_fault,
)
from argosy.core.errors import ArtifactError, NotFound

MAX_READ_BYTES = 2 * CHUNK_BYTES
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP_MAGIC = b"\x1f\x8b"
_TAR_DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, ValueError)
# Left out by the original archiver too; a compiled file may differ from the source beside it.
_LEFT_OUT = {"__MACOSX", "__pycache__"}


class ArchiveForm(StrEnum):
    """How an archive is packed, by the names of `torch-model-archiver --archive-format`."""

    MAR = "default"
    ZIP_STORE = "zip-store"
    TGZ = "tgz"
    FOLDER = "no-archive"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an archive. name: with '/', relative. copy: append its bytes to a file, telling how many came;
    returns their digest.

    A member of a tar can be copied once, while it is the current one.
    """

    name: str
    size_bytes: int
    copy: Callable[[BinaryIO, Callable[[int], None]], str]


def form_of(path: Path) -> ArchiveForm:
    """How the archive at `path` is packed, by its content. Raises: NotFound; ArtifactError if it is none; OSError."""
    if path.is_dir():
        return ArchiveForm.FOLDER
    if not path.is_file():
        raise NotFound(f"there is no archive at {path}: give the path of a .mar, a .tar.gz or a directory")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic in _ZIP_MAGICS:
        with checked_archive(path) as archive:
            is_stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
        return ArchiveForm.ZIP_STORE if is_stored else ArchiveForm.MAR
    if magic.startswith(_GZIP_MAGIC):
        return ArchiveForm.TGZ
    raise ArtifactError(f"{path.name} is no archive: it begins with {magic!r}, neither a zip nor a gzipped tar")


@contextmanager
def members_of(path: Path) -> Iterator[Iterator[Member]]:
    """The files of an archive, in its order; directories are left out, they follow from the names.

    Raises: ArtifactError naming the archive, the member and what is wrong with it, when opened or while going on.
    """
    form = form_of(path)
    if form is ArchiveForm.FOLDER:
        yield _checked(path, _folder_members(path))
    elif form is ArchiveForm.TGZ:
        with _tar_members(path) as members:
            yield _checked(path, members)
    else:
        with checked_archive(path) as archive:
            yield _checked(path, _zip_members(archive))


def refused(path: Path, name: str, fault: str) -> ArtifactError:
    """The error about one member of an archive."""
    return ArtifactError(f"{path.name}: member {name[:120]!r} {fault}: the archive is refused")


def is_left_out(name: str) -> bool:
    """Whether a member is never unpacked: compiled Python, and what a Mac adds."""
    return not _LEFT_OUT.isdisjoint(name.split("/"))


def _checked(path: Path, members: Iterator[Member]) -> Iterator[Member]:
    """The rules that hold for every form: names, clashes, how many, how much."""
    files: set[str] = set()
    directories: set[str] = set()
    total = 0
    for number, member in enumerate(members, start=1):
        if number > MAX_MEMBERS:
            raise ArtifactError(f"{path.name} has more than {MAX_MEMBERS} members: it is refused")
        if fault := name_fault(member.name):
            raise refused(path, member.name, fault)
        folded = unicodedata.normalize("NFC", member.name).casefold()
        parents = _parents(folded)
        if folded in files or folded in directories or not files.isdisjoint(parents):
            raise refused(path, member.name, "stands twice, or differs from another name by case or accents only")
        files.add(folded)
        directories.update(parents)
        total += member.size_bytes
        if total > MAX_TOTAL_BYTES:
            raise ArtifactError(f"{path.name} unpacks to more than {MAX_TOTAL_BYTES} bytes: it is refused")
        if not is_left_out(member.name):
            yield member


def _parents(name: str) -> set[str]:
    parts = name.split("/")[:-1]
    return {"/".join(parts[: count + 1]) for count in range(len(parts))}


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        if not info.is_dir():

            def copy(target: BinaryIO, on_bytes: Callable[[int], None], info: zipfile.ZipInfo = info) -> str:
                return copy_member(archive, info, target, on_bytes)

            yield Member(name=info.filename, size_bytes=info.file_size, copy=copy)


class BoundedGunzip(io.RawIOBase):
    """What a gzip file holds, forward only, and no more of it than honest data can become.

    One read asks for little, whatever a header declares: tar reads extended headers whole.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file = gzip.GzipFile(path)
        self._left = RATIO_FREE_BYTES + MAX_RATIO * path.stat().st_size

    def readable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes that came out so far."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Skip forward to `offset`. Raises: ArtifactError on the way back."""
        ahead = offset - self.tell()
        if whence != io.SEEK_SET or ahead < 0:
            raise ArtifactError(f"{self._path.name}: its members overlap: the archive is refused")
        while ahead and (piece := self.read(min(ahead, CHUNK_BYTES))):
            ahead -= len(piece)
        return self.tell()

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes. Raises: ArtifactError beyond what is allowed."""
        if not 0 <= size <= MAX_READ_BYTES:
            raise ArtifactError(f"{self._path.name}: a header declares {size} bytes: the archive is refused")
        piece = self._file.read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise ArtifactError(f"{self._path.name} unpacks to more than {MAX_RATIO} times its size: it is refused")
        return piece

    def drain(self) -> None:
        """Read what is left, since the checksum stands at the end."""
        while self.read(CHUNK_BYTES):
            pass

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@contextmanager
def _tar_members(path: Path) -> Iterator[Iterator[Member]]:
    with BoundedGunzip(path) as source:
        try:
            archive = tarfile.open(fileobj=source, mode="r:")  # noqa: SIM115 - closed below
        except _TAR_DAMAGE as error:
            raise _damaged(path, error) from error
        with archive:
            yield _walk_tar(path, archive, source)


def _walk_tar(path: Path, archive: tarfile.TarFile, source: BoundedGunzip) -> Iterator[Member]:
    for _ in range(2 * MAX_MEMBERS):  # directories count too: the reader keeps a list of everything
        try:
            info = archive.next()
            if info is None:
                source.drain()
        except _TAR_DAMAGE as error:
            raise _damaged(path, error) from error
        if info is None:
            return
        name = info.name.removeprefix("./")
        if fault := name_fault(name) if name not in ("", ".") else None:
            raise refused(path, name, fault)
        if info.isdir():
            continue
        if not info.isreg() or info.sparse is not None:
            raise refused(path, name, "is a link, a device or a sparse file, not a plain file")

        def copy(target: BinaryIO, on_bytes: Callable[[int], None], info: tarfile.TarInfo = info) -> str:
            return _copy_tar_member(path, archive, info, target, on_bytes)

        yield Member(name=name, size_bytes=info.size, copy=copy)
    raise ArtifactError(f"{path.name} has more than {2 * MAX_MEMBERS} members: it is refused")


def _copy_tar_member(
    path: Path, archive: tarfile.TarFile, info: tarfile.TarInfo, target: BinaryIO, on_bytes: Callable[[int], None]
) -> str:
    try:
        source = archive.extractfile(info)
        if source is None:
            raise refused(path, info.name, "has no content")
        return _copy(source, info.size, target, on_bytes)
    except _TAR_DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path.name} is not a whole archive ({error}): fetch it again", retryable=True)


def _folder_members(path: Path) -> Iterator[Member]:
    for directory, names, files in os.walk(path):
        here = Path(directory)
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in _LEFT_OUT)
        for name in sorted([*files, *(name for name in names if (here / name).is_symlink())]):
            file = here / name
            relative = file.relative_to(path).as_posix()
            status = file.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise refused(path, relative, "is a link or a device: copy the directory with `cp -rL`")

            def copy(target: BinaryIO, on_bytes: Callable[[int], None], file: Path = file) -> str:
                with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as source:
                    return _copy(source, None, target, on_bytes)

            yield Member(name=relative, size_bytes=status.st_size, copy=copy)


def _copy(source: IO[bytes], size: int | None, target: BinaryIO, on_bytes: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    copied = 0
    while piece := source.read(CHUNK_BYTES):
        copied += len(piece)
        digest.update(piece)
        target.write(piece)
        on_bytes(len(piece))
    if size is not None and copied != size:
        raise EOFError(f"a member ends {size - copied} bytes early")
    return f"sha256:{digest.hexdigest()}"
