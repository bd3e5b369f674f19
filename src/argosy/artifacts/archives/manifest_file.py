"""`MAR-INF/MANIFEST.json`: decoded with everything old archivers wrote, encoded as the current one writes it (D-06).

Old manifests hold more (`specificationVersion`, `engine`, `extensions`), or less (no `configFile`), or numbers where
text belongs; all of that is read. What is checked is what we build on: names that become parts of a URL and labels,
and file names, which must be files of this archive.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import msgspec

from argosy.core.errors import SpecError
from argosy.core.model import is_name
from argosy.core.model_archive import ArchiveManifest

MANIFEST_MEMBER = "MAR-INF/MANIFEST.json"
MAX_MANIFEST_BYTES = 2**20
RUNTIMES = ("python", "python3")
NAME_RULE = "must be 1 to 96 letters, digits, '.', '_' or '-', beginning with a letter or digit"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_FILE_FIELDS = ("serializedFile", "modelFile", "requirementsFile", "configFile")


def decode_manifest(content: bytes, archive: str) -> ArchiveManifest:
    """The manifest in `content`. Unknown keys are ignored. Raises: SpecError naming archive and field."""
    where = f"{archive}: {MANIFEST_MEMBER}"
    if len(content) > MAX_MANIFEST_BYTES:
        raise SpecError(f"{where} has {len(content)} bytes, may have {MAX_MANIFEST_BYTES}: it is no manifest")
    try:
        # A byte order mark is what Windows editors leave.
        raw = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{where} is not JSON ({error}): make the archive again") from error
    if not isinstance(raw, dict):
        raise SpecError(f"{where} is a {type(raw).__name__}, must be an object: make the archive again")
    fields = _texts(raw)
    if isinstance(fields.get("model"), dict):
        fields["model"] = _texts(fields["model"])
    try:
        return msgspec.convert(fields, ArchiveManifest)
    except msgspec.ValidationError as error:
        raise SpecError(f"{where}: {error}: make the archive again") from error


def _texts(table: dict[str, Any]) -> dict[str, Any]:
    """The table with numbers as text, and without what is null."""
    return {
        key: json.dumps(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for key, value in table.items()
        if value is not None
    }


def encode_manifest(manifest: ArchiveManifest) -> bytes:
    """The manifest as a file: keys that are not given are absent. The same manifest gives the same bytes."""
    fields = {key: value for key, value in msgspec.to_builtins(manifest).items() if value}
    # The version is always written: a reader need not know the default.
    model = {"modelName": manifest.model.model_name, "modelVersion": manifest.model.model_version}
    fields["model"] = {**{key: value for key, value in fields.get("model", {}).items() if value}, **model}
    return json.dumps(fields, indent=2, ensure_ascii=False).encode() + b"\n"


def checked_manifest(manifest: ArchiveManifest, archive: str, url: str, files: Collection[str]) -> ArchiveManifest:
    """The manifest with a name, if all it says holds. url: what names the model when the manifest does not.

    Raises: SpecError naming archive, field, value and rule.
    """
    model = manifest.model
    name = model.model_name or name_from_url(url)
    if not is_name(name):
        raise _wrong(archive, "modelName", name, NAME_RULE)
    if not _VERSION.fullmatch(model.model_version):
        rule = "must be 1 to 64 letters, digits, '.', '_', '+' or '-', beginning with a letter or digit"
        raise _wrong(archive, "modelVersion", model.model_version, rule)
    if manifest.runtime not in RUNTIMES:
        why = "C++ workers are not run" if manifest.runtime == "LSP" else "there is no such runtime"
        raise _wrong(archive, "runtime", manifest.runtime, f"must be {' or '.join(RUNTIMES)}: {why}")
    named = msgspec.to_builtins(model)
    for field in _FILE_FIELDS:
        file = named.get(field, "")
        if file and file not in files:
            raise _wrong(archive, field, file, "is not a file of the archive")
    fault = handler_fault(model.handler, files)
    if fault is not None:
        raise _wrong(archive, "handler", model.handler, fault)
    return msgspec.structs.replace(manifest, model=msgspec.structs.replace(model, model_name=name))


def handler_parts(handler: str) -> tuple[str, str]:
    """The file, or built-in name, of a handler, and the function or class in it, "" if none is named."""
    file, _, entry = handler.partition(":")
    return file, entry


def handler_fault(handler: str, files: Collection[str]) -> str | None:
    """Why `handler` cannot be one in an archive of these files; None if it can, or is not given."""
    if not handler:
        return None
    file, entry = handler_parts(handler)
    if ":" in handler and not _ENTRY.fullmatch(entry):
        return "must be FILE.py, FILE.py:FUNCTION, FILE.py:CLASS, or the name of a built-in handler"
    if file in files or f"{file}.py" in files:
        return None
    if file.endswith(".py") or ":" in handler:
        return "is not a file of the archive"
    return None if is_name(file) else "is neither a file of the archive nor a name"


def name_from_url(url: str) -> str:
    """The name of a model whose archive gives none: the file's, with every other character as '_'."""
    path = urlsplit(url).path if "://" in url else url
    file = path.rstrip("/").rpartition("/")[2]
    for suffix in (".tar.gz", ".tgz", ".mar", ".model"):
        file = file.removesuffix(suffix)
    return re.sub(r"\W", "_", file, flags=re.ASCII)


def _wrong(archive: str, field: str, value: str, rule: str) -> SpecError:
    shown = value if len(value) <= 60 else value[:57] + "..."
    return SpecError(f"{archive}: {MANIFEST_MEMBER}: model.{field} is {shown!r}: {rule}; make the archive again")
