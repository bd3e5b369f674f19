"""What OpenVINO loads is prepared once per model and kept: later starts map a finished graph into memory.

A GGUF file becomes a folder of the engine cache with OpenVINO's own format (weights rewritten where its reader would
misread them) and the spelling of every token, for constraints. The work happens in a child (`preparing.py`), so its
memory is free afterwards. The folder's name says what it was made of; it appears by a rename, whole or not at all,
once, however many processes want it; and it is made again when a file of it is not as it was.

    GGUF of llama, qwen2, qwen3   rewriting.py, then the library's own converter
    GGUF of other families        argosy.engines.convert; only the spellings are made here
    safetensors                   argosy.engines.convert
    OpenVINO                      as it is
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import msgspec

from argosy.artifacts.durable import SPARE_BYTES, fsync_directory, fsync_file, sha256_of
from argosy.artifacts.locks import held
from argosy.core.errors import ArtifactError, EngineError, SpecError
from argosy.core.model import ModelFiles, ModelFormat
from argosy.engines import convert

logger = logging.getLogger(__name__)

# Raise when preparing changes, so that what the old code made is made again.
VERSION = 1
MANIFEST = "argosy-prepared.json"
VOCABULARY = "vocabulary"
MODEL_FILES = ("openvino_model.xml", "openvino_model.bin")
_ERROR_LINES = 8

Say = Callable[[str], None]


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What to load. model: a folder in OpenVINO's format. vocabulary: a folder with a tokenizer's, or None."""

    model: Path
    vocabulary: Path | None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told, as JSON on its standard input: fill the folder `target` from these GGUF files."""

    sources: tuple[str, ...]
    target: str
    with_model: bool


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the child says, one JSON line each on its standard output: what it does now, or why it failed."""

    activity: str = ""
    error: str = ""
    is_disk_full: bool = False
    is_file_wrong: bool = False


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it was made. sha256 decides when the time differs, as it does after a copy."""

    size_bytes: int
    modified_ns: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a prepared folder; written last, so a folder without one is a ruin."""

    digest: str
    version: int
    openvino: str
    files: dict[str, FileFacts]


async def prepare(files: ModelFiles, cache_dir: Path, say: Say) -> Prepared:
    """The folders to load for `files`, made now if `cache_dir` lacks them. say: told what is being done.

    Cancels: ends the child and removes what it wrote.
    Raises: SpecError if the files are wrong or need tools that are missing; ArtifactError if the disk is too full;
        EngineError if preparing fails.
    """
    if files.format is ModelFormat.OPENVINO:
        return Prepared(model=files.root, vocabulary=_with_spellings(files.root))
    is_converted = convert.needs_conversion(files)
    folder = None
    if files.format is ModelFormat.GGUF:
        folder = await _ensure_folder(files, cache_dir, say, with_model=not is_converted)
    if not is_converted:
        return Prepared(model=cast("Path", folder), vocabulary=_vocabulary(folder))

    def on_progress(progress: convert.ConversionProgress) -> None:
        say(f"converting to OpenVINO (once): {progress.phase.value}, {progress.seconds:.0f} s")

    try:
        model = await convert.ensure_openvino_model(files, cache_dir, convert.WeightFormat.INT8, on_progress)
    except EngineError as error:
        if len(convert.tool_versions()) < len(convert.TOOLS):  # its message names them, and how to install them
            raise SpecError(error.message) from error
        raise
    return Prepared(model=model, vocabulary=_vocabulary(folder) if folder else _with_spellings(model))


def folder_name(digest: str, *, with_model: bool) -> str:
    """Where the prepared folder lies in the cache: the same inputs and tools, the same name."""
    facts = f"{VERSION}\n{digest}\n{importlib.metadata.version('openvino-genai')}"
    kind = "prepared" if with_model else "spellings"
    return f"openvino-{kind}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def is_whole(folder: Path) -> bool:
    """Whether the folder is there and every file in it is as it was made."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        return all(_is_same(folder / name, facts) for name, facts in manifest.files.items())
    except (OSError, msgspec.DecodeError):
        return False


def _is_same(path: Path, facts: FileFacts) -> bool:
    stat = path.stat()
    if stat.st_size != facts.size_bytes:
        return False
    return stat.st_mtime_ns == facts.modified_ns or sha256_of(path) == facts.sha256


def _vocabulary(folder: Path | None) -> Path | None:
    found = folder / VOCABULARY if folder else None
    return found if found and found.is_dir() else None


def _with_spellings(model: Path) -> Path | None:
    """The folder of a model in OpenVINO's format, if the spellings of its tokens lie beside it."""
    return model if (model / "openvino_detokenizer.xml").is_file() else None


async def _ensure_folder(files: ModelFiles, cache_dir: Path, say: Say, *, with_model: bool) -> Path:
    target = cache_dir / folder_name(files.digest, with_model=with_model)
    if await asyncio.to_thread(is_whole, target):
        return target
    async with held(cache_dir / f".{target.name}.lock", on_wait=lambda: say("another process prepares this model")):
        if not await asyncio.to_thread(is_whole, target):
            await _make_folder(files, target, say, with_model=with_model)
    return target


async def _make_folder(files: ModelFiles, target: Path, say: Say, *, with_model: bool) -> None:
    logger.info("preparing weights for OpenVINO, once", extra={"folder": str(target)})
    say("preparing weights for OpenVINO (once)")
    for left in target.parent.glob(f".{target.name}.aside-*"):  # by a process that was killed; the lock is ours
        await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.aside-"))
    try:
        job = Job(sources=tuple(str(path) for path in files.weights), target=str(aside), with_model=with_model)
        await _run_child(job, str(files.ref), say)
        say("writing to disk")
        await asyncio.to_thread(_publish, aside, target, files.digest)
    finally:
        await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)


def _publish(made: Path, target: Path, digest: str) -> None:
    """Make the folder durable and give it its name, at once; what is in the way is a ruin."""
    facts = {}
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        fsync_file(path)
        stat = path.stat()
        facts[str(path.relative_to(made))] = FileFacts(
            size_bytes=stat.st_size, modified_ns=stat.st_mtime_ns, sha256=sha256_of(path)
        )
    openvino = importlib.metadata.version("openvino-genai")
    manifest = Manifest(digest=digest, version=VERSION, openvino=openvino, files=facts)
    (made / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    fsync_file(made / MANIFEST)
    made.chmod(0o755)  # mkdtemp makes folders for one user's eyes
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    fsync_directory(target.parent)


async def _run_child(job: Job, what: str, say: Say) -> None:
    """Run the child to its end. Cancels: kills it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "argosy.engines.openvino.preparing",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdin, stdout = cast("asyncio.StreamWriter", child.stdin), cast("asyncio.StreamReader", child.stdout)
    try:
        async with asyncio.TaskGroup() as tasks:
            errors = tasks.create_task(cast("asyncio.StreamReader", child.stderr).read())
            last = tasks.create_task(_listen(stdout, say))
            stdin.write(msgspec.json.encode(job))
            stdin.close()
        code = await child.wait()
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if code != 0:
        raise _failure(job, what, last.result(), errors.result(), code)


async def _listen(stdout: asyncio.StreamReader, say: Say) -> Said:
    """Pass on each activity; the last thing said."""
    said = Said()
    while line := await stdout.readline():
        said = msgspec.json.decode(line, type=Said)
        if said.activity:
            say(f"preparing weights for OpenVINO (once): {said.activity}")
    return said


def _failure(job: Job, what: str, said: Said, errors: bytes, code: int) -> SpecError | ArtifactError | EngineError:
    folder = Path(job.target).parent
    if said.is_file_wrong:
        return SpecError(f"{what} cannot be prepared for OpenVINO: {said.error}")
    if said.is_disk_full or shutil.disk_usage(folder).free < SPARE_BYTES:
        return ArtifactError(
            f"the disk of {folder} is too full to prepare {what} for OpenVINO: {said.error or 'no space is left'}"
            "; free some space, or choose another store"
        )
    tail = b"\n".join(errors.splitlines()[-_ERROR_LINES:]).decode(errors="replace")
    ending = f"ended with code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
    ending += " (out of memory?)" if code == -signal.SIGKILL else ""
    reason = said.error or tail or "it said nothing"
    return EngineError(f"preparing {what} for OpenVINO failed, the child {ending}: {reason}; choose another --engine")


class Workplace:
    """Where one engine's prepared folders lie: the cache or, without one that can be written, a temporary folder."""

    def __init__(self, cache_dir: Path | None) -> None:
        self._cache_dir = cache_dir
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def open(self) -> Path:
        """The folder to use; made if it is not there."""
        if self._cache_dir is not None:
            with suppress(OSError):
                self._cache_dir.mkdir(parents=True, exist_ok=True)
            if os.access(self._cache_dir, os.W_OK | os.X_OK):
                return self._cache_dir
            logger.warning(
                "the engine cache cannot be written: every start prepares the model again",
                extra={"folder": str(self._cache_dir)},
            )
        self._temporary = tempfile.TemporaryDirectory(prefix="argosy-openvino-")
        return Path(self._temporary.name)

    def close(self) -> None:
        """Remove the temporary folder, if there is one. Idempotent."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
