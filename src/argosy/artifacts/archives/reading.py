"""An archive as it is, before anything of it is unpacked: its form, its manifest, its settings, its files.

The manifest lies at the top, or below one directory that holds everything (a `.tar.gz`). Names and sizes of all
members are checked on the way; contents are not, which is what `verifying.py` and unpacking do.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from argosy.artifacts.archives.containers import ArchiveForm, Member, form_of, members_of, refused
from argosy.artifacts.archives.manifest_file import (
    MANIFEST_MEMBER,
    checked_manifest,
    decode_manifest,
    handler_parts,
)
from argosy.artifacts.archives.settings_file import decode_config
from argosy.core.errors import SpecError
from argosy.core.model_archive import ArchiveManifest

# What is read of an archive to understand it; anything larger is none of them.
MAX_TEXT_BYTES = 2**20
# The contents of the files of these names.
Texts = Callable[[frozenset[str]], Mapping[str, bytes]]


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive says of itself, checked. has_manifest: False = the defaults stand in.

    requirements: the text of its requirements file, "" without one.
    """

    manifest: ArchiveManifest
    has_manifest: bool
    config: dict[str, Any]
    requirements: str


class CheckedArchive(msgspec.Struct, frozen=True, kw_only=True):
    """An archive as it lies there. files: name -> bytes, relative to the model's root, without the manifest."""

    path: Path
    form: ArchiveForm
    statement: Statement
    files: dict[str, int]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(self.files.values())

    def handler_file(self) -> str | None:
        """The file of its handler, or None if that is a built-in one or is not given."""
        file, _ = handler_parts(self.statement.manifest.model.handler)
        return next((name for name in (file, f"{file}.py") if name in self.files), None)


def read_archive(path: Path, *, url: str = "") -> CheckedArchive:
    """What the archive at `path` says. url: what it is registered as; its file's name unless given.

    Raises: ArtifactError for a container that is refused; SpecError for a manifest or settings that are wrong.
    """
    sizes: dict[str, int] = {}
    manifests: dict[str, bytes] = {}
    with members_of(path) as members:
        for member in members:
            sizes[member.name] = member.size_bytes
            if member.name.endswith(MANIFEST_MEMBER) and member.size_bytes <= MAX_TEXT_BYTES:
                manifests[member.name] = _content(member)
    top = top_directory(path, sizes)

    def texts(names: frozenset[str]) -> dict[str, bytes]:
        if names == {MANIFEST_MEMBER}:
            return {name.removeprefix(top): content for name, content in manifests.items()}
        with members_of(path) as members:
            found = (member for member in members if member.name.removeprefix(top) in names)
            return {member.name.removeprefix(top): _content(member) for member in found}

    files = {name.removeprefix(top): size for name, size in sizes.items()}
    statement = understood(path, url or path.name, files, texts)
    files.pop(MANIFEST_MEMBER, None)
    return CheckedArchive(path=path, form=form_of(path), statement=statement, files=files)


def _content(member: Member) -> bytes:
    content = io.BytesIO()
    member.copy(content, lambda _: None)
    return content.getvalue()


def top_directory(path: Path, names: Mapping[str, object]) -> str:
    """The directory that holds everything, with its slash, "" if the files lie at the top. Raises: ArtifactError."""
    if MANIFEST_MEMBER in names:
        return ""
    manifests = [name for name in names if name.endswith(f"/{MANIFEST_MEMBER}") and name.count("/") == 2]
    tops = {name.partition("/")[0] for name in names}
    if len(tops) == 1 and not any(name in tops for name in names) and (manifests or form_of(path) is ArchiveForm.TGZ):
        return f"{tops.pop()}/"
    if manifests:
        raise refused(path, manifests[0], "is a manifest that does not stand above all other files")
    return ""


def understood(path: Path, url: str, sizes: Mapping[str, int], texts: Texts) -> Statement:
    """What the archive says, from the names and sizes of its files, and a way to read small ones.

    Raises: SpecError.
    """
    files = {name: size for name, size in sizes.items() if name != MANIFEST_MEMBER}
    if not files:
        raise SpecError(f"{path.name} holds no file but its manifest: make the archive again")
    has_manifest = MANIFEST_MEMBER in sizes
    manifest = ArchiveManifest()
    if has_manifest:
        manifest = decode_manifest(_text(path, sizes, texts, MANIFEST_MEMBER), path.name)
    manifest = checked_manifest(manifest, path.name, url, files)
    config_file, requirements_file = manifest.model.config_file, manifest.model.requirements_file
    config: dict[str, Any] = {}
    if config_file:
        config = decode_config(_text(path, sizes, texts, config_file), f"{path.name}: {config_file}")
    requirements = _text(path, sizes, texts, requirements_file) if requirements_file else b""
    try:
        wanted = requirements.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path.name}: {requirements_file} is not UTF-8 text: save it so") from error
    return Statement(manifest=manifest, has_manifest=has_manifest, config=config, requirements=wanted)


def _text(path: Path, sizes: Mapping[str, int], texts: Texts, name: str) -> bytes:
    if sizes[name] > MAX_TEXT_BYTES:
        raise SpecError(f"{path.name}: {name} has {sizes[name]} bytes, may have {MAX_TEXT_BYTES}: make it shorter")
    return texts(frozenset({name}))[name]
