"""An archive is made of files: the original archiver's rules, with its silent overwrites and its clock taken out.

Everything stands at the top: the handler, the weights, and the contents of directories given as extra files. The same
files give the same archive, byte for byte: members are sorted, times are fixed, and `createdOn` is written only if
SOURCE_DATE_EPOCH says when. In a `default` archive what does not shrink (weights) is stored, so that it loads fast.

Source: model-archiver of TorchServe 0.12; https://reproducible-builds.org/specs/source-date-epoch/
"""

from __future__ import annotations

import datetime
import gzip
import io
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

import argosy
from argosy.artifacts.archives.containers import ArchiveForm, is_left_out
from argosy.artifacts.archives.handler_code import code_fault
from argosy.artifacts.archives.manifest_file import (
    MANIFEST_MEMBER,
    checked_manifest,
    encode_manifest,
    handler_parts,
)
from argosy.artifacts.archives.reading import CheckedArchive, read_archive
from argosy.artifacts.durable import CHUNK_BYTES, disk_full_means, fsync_directory, fsync_file
from argosy.artifacts.safe_zip import name_fault
from argosy.core.errors import Conflict, SpecError
from argosy.core.model_archive import ArchiveManifest, ArchiveModel

SUFFIXES: Mapping[ArchiveForm, str] = {
    ArchiveForm.MAR: ".mar",
    ArchiveForm.ZIP_STORE: ".mar",
    ArchiveForm.TGZ: ".tar.gz",
    ArchiveForm.FOLDER: "",
}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment a zip can name
_SAMPLE_BYTES = 2**20
_LEAST_GAIN, _MOST_GAIN = 1.15, 50.0
OnBytes = Callable[[int], None]


class ArchivePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into an archive. files: name in the archive -> where it is now."""

    manifest: ArchiveManifest
    files: dict[str, Path]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())


class Ingredients(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants archived, in the words of `torch-model-archiver`; None or "" = not given.

    extra_files: files, directories (their contents), and patterns with *, ? or [].
    """

    model_name: str
    version: str
    handler: str
    serialized_file: Path | None = None
    model_file: Path | None = None
    extra_files: tuple[str, ...] = ()
    requirements_file: Path | None = None
    config_file: Path | None = None
    runtime: str = "python"


def plan_archive(wanted: Ingredients) -> ArchivePlan:
    """What the archive will hold. Raises: SpecError for a name, a clash, or code that is wrong; OSError."""
    files: dict[str, Path] = {}
    handler = Path(wanted.handler).name if wanted.handler else ""
    handler_path = _handler_path(wanted.handler)
    for path in (handler_path, wanted.serialized_file, wanted.model_file, wanted.requirements_file, wanted.config_file):
        if path is not None:
            _add(files, path.name, path)
    for pattern in wanted.extra_files:
        for name, path in _extra(pattern.strip()):
            _add(files, name, path)
    manifest = ArchiveManifest(
        created_on=_created_on(),
        runtime=wanted.runtime,
        model=ArchiveModel(
            model_name=wanted.model_name,
            model_version=wanted.version,
            handler=handler,
            serialized_file=_name(wanted.serialized_file),
            model_file=_name(wanted.model_file),
            requirements_file=_name(wanted.requirements_file),
            config_file=_name(wanted.config_file),
        ),
        archiver_version=f"argosy {argosy.__version__}",
    )
    if not files:
        raise SpecError(
            "an archive holds at least one file: give --handler FILE.py, --serialized-file or --extra-files"
        )
    checked_manifest(manifest, wanted.model_name, wanted.model_name, files)
    if handler_path is not None:
        fault = code_fault(handler_path.read_bytes(), handler_path.name, handler_parts(handler)[1])
        if fault is not None:
            raise SpecError(f"handler {handler}: {fault}")
    return ArchivePlan(manifest=manifest, files=files)


def _name(path: Path | None) -> str:
    return path.name if path is not None else ""


def _handler_path(handler: str) -> Path | None:
    """The file of a handler, or None for a built-in one. Raises: SpecError if it has to be a file and is none."""
    file, entry = handler_parts(handler)
    for path in (Path(file), Path(f"{file}.py")):
        if file and path.is_file():
            return path
    if entry or file.endswith(".py") or "/" in file:
        raise SpecError(f"handler {handler!r}: there is no file {file}: give its path")
    return None


def _extra(pattern: str) -> Iterator[tuple[str, Path]]:
    """The files one entry of extra files stands for, with their names in the archive."""
    is_pattern = not Path(pattern).exists() and any(character in pattern for character in "*?[")
    root = Path(pattern).anchor or "."
    paths = (
        sorted(Path(root).glob(str(Path(pattern).relative_to(Path(pattern).anchor)))) if is_pattern else [Path(pattern)]
    )
    if not paths or not paths[0].exists():
        raise SpecError(
            f"extra file {pattern!r} does not exist: give files, directories or patterns, with commas between"
        )
    for path in paths:
        if path.is_dir():
            for inner in sorted(path.rglob("*")):
                name = inner.relative_to(path).as_posix()
                is_hidden = any(part.startswith(".") for part in Path(name).parent.parts)
                if inner.is_file() and not is_hidden and not is_left_out(name):
                    yield name, inner
        else:
            yield path.name, path


def _add(files: dict[str, Path], name: str, path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise SpecError(f"{path} is a directory or a device: give a file")
    if fault := name_fault(name):
        raise SpecError(f"{name!r} {fault}: rename the file")
    if name == MANIFEST_MEMBER:
        raise SpecError(f"{path} would be the archive's manifest, which is written by this command: leave it out")
    for known, other in files.items():
        if known.casefold() == name.casefold() and other.resolve() != path.resolve():
            raise SpecError(f"{other} and {path} would both be {name!r} in the archive: rename one of them")
    files[name] = path


def _created_on() -> str:
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not seconds.isdigit():
        return ""
    return datetime.datetime.fromtimestamp(int(seconds), tz=datetime.UTC).strftime("%d/%m/%Y %H:%M:%S")


def create_archive(
    plan: ArchivePlan, target: Path, form: ArchiveForm, *, force: bool = False, on_bytes: OnBytes = lambda _: None
) -> CheckedArchive:
    """Write the archive, all or nothing, and read it back. Its directory must exist.

    Raises: Conflict if it exists and `force` is not set; SpecError, ArtifactError if it would be refused; OSError.
    """
    require_free(target, form, force=force)
    with disk_full_means(target.parent, plan.size_bytes), _aside(target, form) as aside:
        _WRITERS[form](plan, aside, on_bytes)
        checked = read_archive(aside, url=target.name)
        _replace(aside, target)
    return msgspec.structs.replace(checked, path=target)


def require_free(target: Path, form: ArchiveForm, *, force: bool) -> None:
    """Raises: Conflict if there is something at `target` that may not be replaced."""
    if target.exists() and not force:
        raise Conflict(f"{target} exists already: pass --force to replace it, or another --output")
    if form is ArchiveForm.FOLDER and target.exists() and not (target / MANIFEST_MEMBER).is_file():
        raise Conflict(f"{target} exists and is no archive: give another --output")


@contextmanager
def _aside(target: Path, form: ArchiveForm) -> Iterator[Path]:
    """A place beside the target, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as directory:
        aside = Path(directory) / target.name
        if form is ArchiveForm.FOLDER:
            aside.mkdir()
        yield aside


def _replace(aside: Path, target: Path) -> None:
    if aside.is_dir():
        if target.exists():
            target.replace(aside.with_name("replaced"))
    else:
        aside.chmod(0o644)
        fsync_file(aside)
    aside.replace(target)
    fsync_directory(target.parent)


def _members(plan: ArchivePlan) -> Iterator[tuple[str, IO[bytes], int]]:
    """Name, open file, size: the manifest first, then the others by name."""
    manifest = encode_manifest(plan.manifest)
    yield MANIFEST_MEMBER, io.BytesIO(manifest), len(manifest)
    for name, path in sorted(plan.files.items()):
        with path.open("rb") as file:
            yield name, file, os.fstat(file.fileno()).st_size


def _write_zip(plan: ArchivePlan, target: Path, on_bytes: OnBytes, *, is_stored: bool) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for name, source, size in _members(plan):
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.create_system = 3
            info.file_size = size
            info.compress_type = zipfile.ZIP_STORED if is_stored or not _shrinks(source) else zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=size > 2**31) as member:
                _copy(source, member, on_bytes)


def _shrinks(source: IO[bytes]) -> bool:
    """Whether deflating pays, by the first megabyte; what shrinks absurdly is stored, as a reader would refuse it."""
    sample = source.read(_SAMPLE_BYTES)
    source.seek(0)
    packed = len(zlib.compress(sample, 1))
    return _LEAST_GAIN < len(sample) / packed < _MOST_GAIN if len(sample) > 64 else bool(sample)


def _write_tar(plan: ArchivePlan, target: Path, on_bytes: OnBytes) -> None:
    top = plan.manifest.model.model_name
    with (
        target.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, source, size in _members(plan):
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size, info.mode = size, 0o644
            archive.addfile(info, _Counted(source, on_bytes))


class _Counted(io.RawIOBase):
    """A file that tells how much of it was read."""

    def __init__(self, source: IO[bytes], on_bytes: OnBytes) -> None:
        super().__init__()
        self._source, self._on_bytes = source, on_bytes

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        piece = self._source.read(size)
        self._on_bytes(len(piece))
        return piece


def _write_folder(plan: ArchivePlan, target: Path, on_bytes: OnBytes) -> None:
    for name, source, _ in _members(plan):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            _copy(source, file, on_bytes)
    for directory in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        directory.chmod(0o755)


def _copy(source: IO[bytes], target: IO[bytes], on_bytes: OnBytes) -> None:
    while piece := source.read(CHUNK_BYTES):
        target.write(piece)
        on_bytes(len(piece))


_WRITERS: Mapping[ArchiveForm, Callable[[ArchivePlan, Path, OnBytes], None]] = {
    ArchiveForm.MAR: lambda plan, target, on_bytes: _write_zip(plan, target, on_bytes, is_stored=False),
    ArchiveForm.ZIP_STORE: lambda plan, target, on_bytes: _write_zip(plan, target, on_bytes, is_stored=True),
    ArchiveForm.TGZ: _write_tar,
    ArchiveForm.FOLDER: _write_folder,
}
