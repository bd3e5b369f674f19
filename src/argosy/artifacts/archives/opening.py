"""An archive becomes a directory that a handler can be given: unpacked by digest, once, whole or not at all.

    ROOT/files/<hex>/           the model's root: read-only files
    ROOT/records/<hex>.json     what they are, and how they looked when they were hashed
    ROOT/seen/<hex>.json        per archive path: how it looked, and which digest that gave
    ROOT/partial/               work in progress; what a killed process leaves is garbage

The digest is that of the contents, so the same model as `.mar`, `.tar.gz` or directory is unpacked once. Opening an
archive again reads no content: it compares sizes, times and inodes, of the archive and of what was unpacked, with the
records (D-12). Anything that differs is unpacked again from the archive.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from argosy.artifacts.archives.containers import members_of
from argosy.artifacts.archives.contents import UNSAFE, ContentKind, kind_of
from argosy.artifacts.archives.environments import find_environment
from argosy.artifacts.archives.reading import top_directory, understood
from argosy.artifacts.durable import disk_full_means, fsync_directory, require_space, write_durably
from argosy.artifacts.manifest import FileRecord, model_digest, record_of
from argosy.artifacts.safetensors import read_safetensors
from argosy.core.errors import ArtifactError, NotFound, SpecError
from argosy.core.model_archive import ModelArchive

T = TypeVar("T")
RECORD_VERSION = 1
OnBytes = Callable[[int], None]


class UnpackedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What lies under one digest. unsafe: files that run code when they are read, and their kind."""

    version: int
    digest: str
    files: tuple[FileRecord, ...]
    unsafe: dict[str, ContentKind]


class SeenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How an archive looked when it was unpacked: a hash over names, sizes, times, inodes; and what it held."""

    path: str
    look: str
    digest: str


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """An archive on disk. root: the directory of its files."""

    root: Path
    record: UnpackedRecord

    def texts(self, names: frozenset[str]) -> dict[str, bytes]:
        """The contents of these files."""
        return {name: (self.root / name).read_bytes() for name in names}


def open_archive(
    path: Path,
    root: Path,
    *,
    url: str,
    environments: Path,
    allowed: frozenset[ContentKind] = frozenset(),
    on_bytes: OnBytes | None = None,
) -> ModelArchive:
    """The archive at `path`, checked and unpacked below `root`, ready for a worker.

    url: what it is registered as. environments: where `argosy archive prepare` put what it asks for.
    allowed: kinds of files that are refused otherwise (pickle, torchscript).
    Raises: NotFound; ArtifactError for a container, SpecError for what it holds, naming archive, member and what to do.
    """
    unpacked = unpack(path, root.absolute(), on_bytes=on_bytes)
    record = unpacked.record
    for name, kind in record.unsafe.items():
        if kind not in allowed:
            raise refusal(path, name, kind)
    sizes = {file.path: file.size_bytes for file in record.files}
    statement = understood(path, url, sizes, unpacked.texts)
    return ModelArchive(
        url=url,
        root=unpacked.root,
        digest=record.digest,
        manifest=statement.manifest,
        config=statement.config,
        environment=find_environment(path, statement.requirements, sizes, environments.absolute()),
    )


def refusal(path: Path, name: str, kind: ContentKind) -> SpecError:
    """The error about weights that run code."""
    if kind is ContentKind.TORCHSCRIPT:
        return SpecError(
            f"{path.name}: {name} is a TorchScript program, not numbers: save the state dict as safetensors with a "
            "model file, or allow programs of this server's archives with --allow-content torchscript"
        )
    return SpecError(
        f"{path.name}: {name} is a pickle, which runs code when it is read: "
        f"run `argosy archive convert {path.name} -o NEW.mar` to get the same archive with safetensors"
    )


def unpack(path: Path, root: Path, *, on_bytes: OnBytes | None = None) -> Unpacked:
    """Unpack the archive below `root`, unless it lies there already. Raises: NotFound, ArtifactError, SpecError."""
    look = look_of(path)
    seen_path = root / "seen" / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()}.json"
    seen = decoded(seen_path, SeenRecord)
    if seen is not None and seen.look == look and (known := _known(root, seen.digest)) is not None:
        return known
    try:
        for directory in ("files", "records", "seen", "partial"):
            (root / directory).mkdir(parents=True, exist_ok=True)
        unpacked = _unpack_anew(path, root, on_bytes or _ignore)
        now_seen = SeenRecord(path=str(path.absolute()), look=look, digest=unpacked.record.digest)
        write_durably(seen_path, msgspec.json.encode(now_seen))
    except OSError as error:
        raise ArtifactError(
            f"{path.name} cannot be unpacked below {root} ({error.strerror}: {error.filename}): make both the archive "
            "readable and the store writable, or choose another --store"
        ) from error
    return unpacked


def _ignore(_: int) -> None:
    """Nobody watches."""


def look_of(path: Path) -> str:
    """A hash over how the archive's file, or all files of its directory, look to `stat`. Raises: NotFound."""
    if not path.exists():
        raise NotFound(f"there is no archive at {path}: give the path of a .mar, a .tar.gz or a directory")
    paths = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    lines = []
    for each in paths:
        status = each.lstat()
        lines.append(f"{each}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\0{status.st_mode}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _known(root: Path, digest: str) -> Unpacked | None:
    """What lies under the digest, if it looks as it did when it was hashed."""
    directory, record_path = _places(root, digest)
    record = decoded(record_path, UnpackedRecord)
    if record is None or record.version != RECORD_VERSION:
        return None
    try:
        is_same = all(file.matches((directory / file.path).lstat()) for file in record.files)
    except FileNotFoundError:
        return None
    return Unpacked(root=directory, record=record) if is_same else None


def _places(root: Path, digest: str) -> tuple[Path, Path]:
    name = digest.removeprefix("sha256:")
    return root / "files" / name, root / "records" / f"{name}.json"


def _unpack_anew(path: Path, root: Path, on_bytes: OnBytes) -> Unpacked:
    aside = Path(tempfile.mkdtemp(dir=root / "partial", prefix="unpack-"))
    try:
        with disk_full_means(root, 0):
            digests = copy_out(path, aside, on_bytes)
        top = top_directory(path, digests)
        home = aside / top
        contents = {name.removeprefix(top): digest for name, digest in digests.items()}
        files = tuple(record_of(home / name, name, digest) for name, digest in sorted(contents.items()))
        record = UnpackedRecord(
            version=RECORD_VERSION, digest=model_digest(files), files=files, unsafe=_unsafe_files(path, home, contents)
        )
        sizes = {file.path: file.size_bytes for file in files}
        understood(path, path.name, sizes, Unpacked(root=home, record=record).texts)
        return _publish(home, root, record)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def copy_out(path: Path, aside: Path, on_bytes: OnBytes) -> dict[str, str]:
    """Write every member below `aside`, read-only. Returns name -> digest.

    Raises: ArtifactError; what was written by then is the caller's to remove.
    """
    digests: dict[str, str] = {}
    with members_of(path) as members:
        for member in members:
            require_space(aside, member.size_bytes)
            target = aside / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                digests[member.name] = member.copy(file, on_bytes)
            target.chmod(0o444)
    return digests


def _unsafe_files(path: Path, home: Path, names: Iterable[str]) -> dict[str, ContentKind]:
    """The files that run code when they are read. Raises: SpecError for weights that are damaged (D-08)."""
    unsafe = {}
    for name in sorted(names):
        kind = kind_of(home / name)
        if kind in UNSAFE:
            unsafe[name] = kind
        elif kind is ContentKind.SAFETENSORS and name.endswith(".safetensors"):
            try:
                read_safetensors(home / name)
            except SpecError as error:
                raise SpecError(f"{path.name}: {error.message}") from error
    return unsafe


def _publish(home: Path, root: Path, record: UnpackedRecord) -> Unpacked:
    """Make `home` the directory of its digest. What lies there already, and is right, stays: it may be in use."""
    directory, record_path = _places(root, record.digest)
    for each in [home, *(path for path in home.rglob("*") if path.is_dir())]:
        each.chmod(0o755)
    with _alone(root / "lock"):
        if (known := _known(root, record.digest)) is not None:
            return known
        if directory.exists():
            directory.replace(Path(tempfile.mkdtemp(dir=root / "partial", prefix="changed-")) / "files")
        home.replace(directory)
        fsync_directory(directory.parent)
        write_durably(record_path, msgspec.json.encode(record))
    return Unpacked(root=directory, record=record)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process, and one thread of it, at a time; the others wait for the few renames this guards."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def decoded(path: Path, kind: type[T]) -> T | None:
    """A record of ours, or None if there is none that this version understands."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
