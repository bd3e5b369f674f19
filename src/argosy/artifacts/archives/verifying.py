"""`argosy archive verify`: everything that loading would check, and what it could not, told all at once.

A container that is refused ends the check, since nothing of it can be trusted. From there on every fault is collected:
settings, requirements, weights, the handler's syntax and entry. Nothing of the archive is imported or run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from argosy.artifacts.archives.contents import UNSAFE, ContentKind, kind_of
from argosy.artifacts.archives.environments import find_environment
from argosy.artifacts.archives.handler_code import code_fault
from argosy.artifacts.archives.manifest_file import handler_parts
from argosy.artifacts.archives.opening import copy_out, refusal
from argosy.artifacts.archives.reading import CheckedArchive, read_archive, top_directory
from argosy.artifacts.archives.requirements import required_packages
from argosy.artifacts.archives.settings_file import config_advice, decode_settings
from argosy.artifacts.manifest import model_digest, record_of
from argosy.artifacts.safetensors import read_safetensors
from argosy.core.errors import ArtifactError, SpecError
from argosy.core.model_archive import VersionSettings


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing about an archive. is_error: a server would refuse it; else it is worth knowing."""

    message: str
    is_error: bool


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found. digest: of its contents, "" if they could not be read. kinds: weights and other formats."""

    archive: str
    digest: str
    findings: tuple[Finding, ...]
    kinds: dict[str, ContentKind]

    @property
    def is_good(self) -> bool:
        """Whether a server would load it."""
        return not any(finding.is_error for finding in self.findings)


def verify_archive(
    path: Path, *, environments: Path, scratch: Path, on_bytes: Callable[[int], None] = lambda _: None
) -> Verdict:
    """Check everything. scratch: a directory with room for the unpacked archive; nothing stays there."""
    try:
        checked = read_archive(path)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="verify-") as directory:
            digests = copy_out(path, Path(directory), on_bytes)
            top = top_directory(path, digests)
            home = Path(directory) / top
            contents = {name.removeprefix(top): digest for name, digest in digests.items()}
            records = tuple(record_of(home / name, name, digest) for name, digest in contents.items())
            kinds = {name: kind_of(home / name) for name in sorted(checked.files)}
            findings = (*_statement(checked, environments), *_weights(path, home, kinds), *_code(checked, home))
            digest = model_digest(records)
    except (ArtifactError, SpecError) as error:
        return Verdict(
            archive=path.name, digest="", findings=(Finding(message=error.message, is_error=True),), kinds={}
        )
    notable: dict[str, ContentKind] = {name: kind for name, kind in kinds.items() if kind is not ContentKind.OTHER}
    return Verdict(archive=path.name, digest=digest, findings=findings, kinds=notable)


def _statement(checked: CheckedArchive, environments: Path) -> Iterator[Finding]:
    statement, name = checked.statement, checked.path.name
    if not statement.has_manifest:
        yield Finding(message=f"{name} has no manifest: the defaults stand in for it", is_error=False)
    if not statement.manifest.model.handler:
        yield Finding(message=f"{name} names no handler: whoever registers it has to", is_error=False)
    where = f"{name}: {statement.manifest.model.config_file}"
    try:
        decode_settings(statement.config, VersionSettings(), where)
    except SpecError as error:
        yield Finding(message=error.message, is_error=True)
    for advice in config_advice(statement.config):
        yield Finding(message=f"{where}: {advice}", is_error=False)
    try:
        required_packages(statement.requirements, f"{name}: requirements", checked.files)
    except SpecError as error:
        yield Finding(message=error.message, is_error=True)
        return
    try:
        find_environment(checked.path, statement.requirements, checked.files, environments)
    except SpecError as error:
        yield Finding(message=error.message, is_error=False)


def _weights(path: Path, home: Path, kinds: dict[str, ContentKind]) -> Iterator[Finding]:
    for name, kind in kinds.items():
        if kind in UNSAFE:
            yield Finding(message=refusal(path, name, kind).message, is_error=True)
        elif name.endswith(".safetensors"):
            try:
                read_safetensors(home / name)
            except SpecError as error:
                yield Finding(message=error.message, is_error=True)


def _code(checked: CheckedArchive, home: Path) -> Iterator[Finding]:
    model = checked.statement.manifest.model
    handler = checked.handler_file()
    if handler is not None:
        fault = code_fault((home / handler).read_bytes(), handler, handler_parts(model.handler)[1])
        if fault is not None:
            yield Finding(message=fault, is_error=True)
    if model.model_file:
        fault = code_fault((home / model.model_file).read_bytes(), model.model_file, "")
        if fault is not None:
            yield Finding(message=fault, is_error=True)
