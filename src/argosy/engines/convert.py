"""A checkpoint OpenVINO cannot read becomes, once, an OpenVINO model (IR) that it can.

Safetensors checkpoints and GGUF files of other families than OpenVINO's own reader knows are converted by
optimum-intel, which needs torch and gigabytes of memory for a while. So the work happens in a child process
(`convert_worker`): when it ends its memory is the machine's again, and if it dies the server says why and lives.

The result lies in a folder of the engine cache, named for what it was made of: the model's digest, the weight
format and the versions of the tools. It appears there whole, by a rename, or not at all; two processes that want
the same one make it once. A machine without the extra `[convert]` uses what another has made.

Imports neither torch nor optimum. Read next: `convert_worker.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import cast

import msgspec

from argosy.artifacts.durable import fsync_directory, fsync_file
from argosy.artifacts.locks import held
from argosy.core.errors import ArtifactError, EngineError, SpecError
from argosy.core.model import ModelFiles, ModelFormat

# Source: openvino.genai, gguf_modeling.cpp (create_from_gguf): the families it reads without conversion.
NATIVE_GGUF_ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3"})
# The families tried or whose exporter optimum-intel 2.2 documents. Source: optimum-intel, model_configs.py.
CONVERTIBLE = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gemma3_text", "phi3"})
TOOLS = ("optimum-intel", "transformers", "torch", "nncf", "openvino")
INSTALL = "pip install 'argosy[convert]'"
MANIFEST = "argosy-conversion.json"
# Raise when the worker's recipe changes, so that what the old one made is made again.
RECIPE = 2
_LINE_LIMIT_BYTES = 1 << 20
_ERROR_LINES = 12
_REPORT_SECONDS = 1.0


class WeightFormat(StrEnum):
    """How the weights of the converted model are stored: nearest, balanced, smallest."""

    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class ConversionPhase(StrEnum):
    """What a conversion does now, in this order. `wait` only while another process converts the same model."""

    WAIT = "wait"
    LOAD = "load"
    TRACE = "trace"
    COMPRESS = "compress"
    TOKENIZER = "tokenizer"
    DONE = "done"


class ConversionProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One report: the phase, and the seconds since the conversion began."""

    phase: ConversionPhase
    seconds: float


OnProgress = Callable[[ConversionProgress], None]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told, as JSON on its standard input. gguf_file: a name in `source`, or empty."""

    source: str
    target: str
    weight_format: WeightFormat
    gguf_file: str = ""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the child says, one JSON line each on its standard output: a phase it begins, or why it failed."""

    phase: ConversionPhase | None = None
    error: str = ""


def needs_conversion(files: ModelFiles) -> bool:
    """Whether OpenVINO cannot read these files as they are."""
    if files.format is ModelFormat.GGUF:
        return files.info.architecture not in NATIVE_GGUF_ARCHITECTURES
    return files.format is ModelFormat.SAFETENSORS


async def ensure_openvino_model(
    files: ModelFiles,
    cache_dir: Path,
    weight_format: WeightFormat = WeightFormat.INT8,
    on_progress: OnProgress | None = None,
) -> Path:
    """The folder of the OpenVINO model made from `files`: openvino_model.xml, its .bin, and the tokenizer's.

    Made now if it is not in `cache_dir` yet; on_progress is then called, on the event loop, as each phase begins and
    every second while it lasts.
    Cancels: ends the child and removes what it wrote.
    Raises: SpecError if the family cannot be converted; EngineError without the extra, or if the tools fail;
        ArtifactError if the disk is too full.
    """
    _require_convertible(files)
    versions = tool_versions()
    target = cache_dir / folder_name(files.digest, weight_format, versions)
    found = _converted(cache_dir, target, files.digest, weight_format, versions)
    if found is not None:
        return found
    _require_tools(files, versions)
    began = time.monotonic()

    def report(phase: ConversionPhase) -> None:
        if on_progress is not None:
            on_progress(ConversionProgress(phase=phase, seconds=time.monotonic() - began))

    await asyncio.to_thread(cache_dir.mkdir, parents=True, exist_ok=True)
    lock = cache_dir / f".{target.name}.lock"
    async with held(lock, on_wait=lambda: report(ConversionPhase.WAIT)):
        if not (target / MANIFEST).is_file():
            _require_disk(files, cache_dir)
            await _convert(files, target, weight_format, versions, report)
    report(ConversionPhase.DONE)
    return target


def tool_versions() -> dict[str, str]:
    """The versions of the conversion tools; one that is not installed is left out."""
    versions = {}
    for name in TOOLS:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def folder_name(digest: str, weight_format: WeightFormat, versions: Mapping[str, str]) -> str:
    """Where the conversion lies in the cache. Pure: the same inputs, the same name."""
    facts = "\n".join([f"recipe {RECIPE}", digest, weight_format, *(f"{k} {versions[k]}" for k in sorted(versions))])
    return f"openvino-{weight_format}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def _converted(
    cache_dir: Path, target: Path, digest: str, weight_format: WeightFormat, versions: Mapping[str, str]
) -> Path | None:
    """The finished conversion: the one by these tools or, where tools are missing, the newest by any."""
    if (target / MANIFEST).is_file():
        return target
    if len(versions) == len(TOOLS):
        return None
    made = []
    for manifest in cache_dir.glob(f"openvino-{weight_format}-*/{MANIFEST}"):
        facts = msgspec.json.decode(manifest.read_bytes(), type=dict[str, str])
        if facts.get("digest") == digest and facts.get("recipe") == str(RECIPE):
            made.append(manifest)
    newest = max(made, key=lambda manifest: manifest.stat().st_mtime, default=None)
    return newest.parent if newest else None


def _require_convertible(files: ModelFiles) -> None:
    if files.info.is_encoder_decoder or files.info.architecture not in CONVERTIBLE:
        raise SpecError(
            f"{files.ref} is of the family {files.info.architecture!r}: Argosy converts "
            f"{', '.join(sorted(CONVERTIBLE))} to OpenVINO; serve it with --engine transformers or --engine vllm"
        )


def _require_tools(files: ModelFiles, versions: Mapping[str, str]) -> None:
    missing = [name for name in TOOLS if name not in versions]
    if files.format is ModelFormat.GGUF and importlib.util.find_spec("gguf") is None:
        missing.append("gguf")
    if missing:
        raise EngineError(
            f"{files.ref} is {_described(files)}, which OpenVINO reads only once converted, and "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: run {INSTALL} and start "
            "again (the conversion is kept, so only one machine needs the tools), or choose another --engine"
        )


def _described(files: ModelFiles) -> str:
    if files.format is ModelFormat.GGUF:
        return f"a GGUF file of the family {files.info.architecture!r}"
    return "a safetensors checkpoint"


def _require_disk(files: ModelFiles, cache_dir: Path) -> None:
    """The traced model (16 bits a weight) and the compressed one lie side by side for a moment."""
    needed = 2 * files.info.num_parameters + max(2 * files.info.num_parameters, files.info.weight_bytes)
    free = shutil.disk_usage(cache_dir).free
    if free < needed:
        raise ArtifactError(
            f"converting {files.ref} needs {needed / 1e9:.1f} GB in {cache_dir}, and {free / 1e9:.1f} GB are free: "
            "free some space, or name another cache directory"
        )


async def _convert(
    files: ModelFiles,
    target: Path,
    weight_format: WeightFormat,
    versions: Mapping[str, str],
    report: Callable[[ConversionPhase], None],
) -> None:
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        is_gguf = files.format is ModelFormat.GGUF
        made = aside / "model"
        job = Job(
            source=str(files.weights[0].parent if is_gguf else files.root),
            target=str(made),
            weight_format=weight_format,
            gguf_file=files.weights[0].name if is_gguf else "",
        )
        await _run_child(job, f"converting {files.ref} to OpenVINO", report)
        facts = {**versions, "digest": files.digest, "recipe": str(RECIPE), "weight_format": str(weight_format)}
        (made / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(facts)))
        await asyncio.to_thread(_publish, made, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _publish(made: Path, target: Path) -> None:
    """Make the folder durable and give it its name, at once. A folder without manifest in the way is a ruin."""
    for path in made.iterdir():
        fsync_file(path)
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    fsync_directory(target.parent)


async def _run_child(job: Job, what: str, report: Callable[[ConversionPhase], None]) -> None:
    """Run the worker to its end. Cancels: kills it. Raises: EngineError with its own words."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "argosy.engines.convert_worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT_BYTES,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    stdin, stdout = cast("asyncio.StreamWriter", child.stdin), cast("asyncio.StreamReader", child.stdout)
    try:
        async with asyncio.TaskGroup() as tasks:
            errors = tasks.create_task(_last_lines(cast("asyncio.StreamReader", child.stderr)))
            said = tasks.create_task(_listen(stdout, report))
            stdin.write(msgspec.json.encode(job))
            stdin.close()
        code = await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if code != 0:
        reason = said.result() or "\n".join(errors.result()) or "it said nothing"
        ending = f"ended with code {code}" if code > 0 else f"was killed by signal {-code} (9: out of memory)"
        raise EngineError(f"{what} failed, the child {ending}: {reason}; serve it with another --engine")


async def _listen(stdout: asyncio.StreamReader, report: Callable[[ConversionPhase], None]) -> str:
    """Report each phase, and again every second; the error, if the child names one."""
    phase, error = ConversionPhase.LOAD, ""
    while True:
        report(phase)
        with suppress(TimeoutError):  # A cancelled readline loses nothing: what has come stays in the reader.
            async with asyncio.timeout(_REPORT_SECONDS):
                line = await stdout.readline()
                if not line:
                    return error
                said = msgspec.json.decode(line, type=Said)
                phase, error = said.phase or phase, said.error or error


async def _last_lines(stderr: asyncio.StreamReader) -> list[str]:
    """The last lines of a stream, whatever their length (progress bars write none)."""
    lines: deque[str] = deque(maxlen=_ERROR_LINES)
    rest = b""
    while chunk := await stderr.read(1 << 16):
        *whole, rest = (rest + chunk).split(b"\n")
        lines.extend(line.decode(errors="replace")[-500:] for line in whole if line.strip())
        rest = rest[-500:]
    return [*lines, rest.decode(errors="replace")] if rest.strip() else list(lines)
