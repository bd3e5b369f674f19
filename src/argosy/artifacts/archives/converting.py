"""`argosy archive convert`: the same archive with safetensors where pickles were (D-04).

Every pickle is read by a process of its own that may do next to nothing (`conversion_child.py`); this one only sees a
safetensors file, whose header it checks like a stranger's, and one line of JSON. Names follow Hugging Face's, so that
`from_pretrained` finds `model.safetensors` where `pytorch_model.bin` was; the manifest and a shard index follow too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from argosy.artifacts.archives.containers import ArchiveForm
from argosy.artifacts.archives.contents import ContentKind, kind_of
from argosy.artifacts.archives.creating import ArchivePlan, create_archive, require_free
from argosy.artifacts.archives.opening import copy_out
from argosy.artifacts.archives.reading import CheckedArchive, read_archive, top_directory
from argosy.artifacts.safetensors import read_safetensors
from argosy.core.child_module import module_command
from argosy.core.errors import ArtifactError, SpecError
from argosy.core.model_archive import ArchiveManifest

CHILD = "argosy.artifacts.archives.conversion_child"
TIMEOUT_SECONDS = 3600.0
MAX_ANSWER_BYTES = 2**20
_SHARD = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
_WEIGHT_SUFFIX = re.compile(r"\.(bin|pt|pth|ckpt|pkl|pickle|model)$", re.IGNORECASE)
_INDEX = "pytorch_model.bin.index.json"


class ConvertedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One pickle and what became of it. dropped: names in it that are no tensors."""

    source: str
    target: str
    num_tensors: int
    size_bytes: int
    dropped: tuple[str, ...]


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion did. left_out: files that were to be left out."""

    archive: CheckedArchive
    files: tuple[ConvertedFile, ...]
    left_out: tuple[str, ...]


class _ChildAnswer(msgspec.Struct, frozen=True, kw_only=True):
    tensors: int = 0
    bytes: int = 0
    dropped: tuple[str, ...] = ()
    error: str = ""


def convert_archive(
    source: Path,
    target: Path,
    *,
    form: ArchiveForm | None = None,
    drop: Collection[str] = (),
    force: bool = False,
    on_file: Callable[[str], None] = lambda _: None,
) -> Conversion:
    """Write `source` again as `target`, pickles turned into safetensors. form: as the source unless given.

    drop: files to leave out. Raises: ArtifactError, SpecError naming the file and what to do; Conflict; OSError.
    """
    checked = read_archive(source)
    require_free(target, form or checked.form, force=force)
    if unknown := sorted(set(drop) - set(checked.files)):
        raise SpecError(
            f"{source.name} has no file {unknown[0]!r} to drop: it holds {', '.join(sorted(checked.files))}"
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.convert-") as directory:
        unpacked = Path(directory) / "unpacked"
        unpacked.mkdir()
        digests = copy_out(source, unpacked, lambda _: None)
        home = unpacked / top_directory(source, digests)
        files = {name: home / name for name in checked.files if name not in drop}
        converted = []
        for name in sorted(files):
            if kind_of(files[name]) is ContentKind.PICKLE:
                on_file(name)
                one = _convert_file(source, name, files, home)
                converted.append(one)
        _rename_index(files, {each.source: each.target for each in converted}, Path(directory))
        plan = ArchivePlan(manifest=_manifest(checked, converted), files=files)
        archive = create_archive(plan, target, form or checked.form, force=force)
    return Conversion(archive=archive, files=tuple(converted), left_out=tuple(sorted(drop)))


def converted_name(name: str) -> str:
    """What a file of pickled weights is called as safetensors."""
    folder, _, file = name.rpartition("/")
    if match := _SHARD.fullmatch(file):
        file = f"model{match[1] or ''}.safetensors"
    else:
        file = f"{_WEIGHT_SUFFIX.sub('', file)}.safetensors"
    return f"{folder}/{file}" if folder else file


def _convert_file(source: Path, name: str, files: dict[str, Path], home: Path) -> ConvertedFile:
    target = converted_name(name)
    if target in files:
        raise SpecError(f"{source.name} holds {name} and {target} both: leave one out with --drop {name}")
    path = home / target
    answer = run_child(files[name], path)
    if answer.error:
        raise SpecError(
            f"{source.name}: {name} cannot be converted: {answer.error}; or leave it out with --drop {name}"
        )
    read_safetensors(path)
    del files[name]
    files[target] = path
    return ConvertedFile(
        source=name, target=target, num_tensors=answer.tensors, size_bytes=answer.bytes, dropped=answer.dropped
    )


def run_child(source: Path, target: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> _ChildAnswer:
    """Convert one file in a confined process. Raises: ArtifactError if it died or took too long."""
    paths = (str(source.absolute()), str(target.absolute()))
    command = module_command(sys.executable, CHILD, *paths, writes_bytecode=False)
    with subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=target.parent,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        start_new_session=True,
    ) as child:
        try:
            out, err = child.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            message = f"reading {source.name} took longer than {timeout_seconds:.0f} s: it was ended"
            raise ArtifactError(message) from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    lines = out[:MAX_ANSWER_BYTES].splitlines()
    try:
        return msgspec.json.decode(lines[-1], type=_ChildAnswer)
    except (IndexError, msgspec.MsgspecError) as error:
        said = err.decode(errors="replace").strip().splitlines()[-1:] or [f"it ended with code {child.returncode}"]
        raise ArtifactError(
            f"the process that read {source.name} failed ({said[0][:200]}): the file is damaged, hostile, or too large "
            "for its limits"
        ) from error


def _manifest(checked: CheckedArchive, converted: list[ConvertedFile]) -> ArchiveManifest:
    manifest = checked.statement.manifest
    names = {each.source: each.target for each in converted}
    weights = manifest.model.serialized_file
    model = msgspec.structs.replace(manifest.model, serialized_file=names.get(weights, weights))
    return msgspec.structs.replace(manifest, model=model)


def _rename_index(files: dict[str, Path], names: dict[str, str], scratch: Path) -> None:
    """Let the index of a sharded checkpoint name the new files."""
    for name in [name for name in files if name.rpartition("/")[2] == _INDEX]:
        folder = name.removesuffix(_INDEX)
        try:
            index = json.loads(files[name].read_bytes())
            shards = index["weight_map"]
            index["weight_map"] = {
                tensor: names.get(f"{folder}{file}", f"{folder}{file}").removeprefix(folder)
                for tensor, file in shards.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SpecError(
                f"{name} is no index of shards ({error}): correct it, or leave it out with --drop"
            ) from error
        path = scratch / f"index-{len(folder)}.json"
        path.write_text(json.dumps(index, indent=2))
        del files[name]
        files[f"{folder}model.safetensors.index.json"] = path
