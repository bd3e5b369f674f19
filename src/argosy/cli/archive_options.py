"""Flags and forms that the commands of `argosy archive` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from argosy.cli import terminal
from argosy.core.errors import InvalidRequest
from argosy.core.plugins import resolve

_ARCHIVES: Mapping[str, str] = {
    "ArchiveForm": "argosy.artifacts.archives.containers:ArchiveForm",
    "SUFFIXES": "argosy.artifacts.archives.creating:SUFFIXES",
    "Ingredients": "argosy.artifacts.archives.creating:Ingredients",
    "PackageSources": "argosy.artifacts.archives.pip_process:PackageSources",
    "Preparation": "argosy.artifacts.archives.environments:Preparation",
    "collect_archives": "argosy.artifacts.archives.collecting:collect_archives",
    "convert_archive": "argosy.artifacts.archives.converting:convert_archive",
    "create_archive": "argosy.artifacts.archives.creating:create_archive",
    "default_store_root": "argosy.artifacts.store:default_store_root",
    "kind_of": "argosy.artifacts.archives.contents:kind_of",
    "plan_archive": "argosy.artifacts.archives.creating:plan_archive",
    "read_archive": "argosy.artifacts.archives.reading:read_archive",
    "require_free": "argosy.artifacts.archives.creating:require_free",
    "verify_archive": "argosy.artifacts.archives.verifying:verify_archive",
}
# Our words, and those of `torch-model-archiver --archive-format`.
_FORMS: Mapping[str, str] = {
    "mar": "default",
    "default": "default",
    "zip-store": "zip-store",
    "tgz": "tgz",
    "folder": "no-archive",
    "no-archive": "no-archive",
}

ArchiveArgument = Annotated[Path, typer.Argument(metavar="ARCHIVE", help="A .mar, a .tar.gz or a directory.")]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store", help="Where unpacked archives and environments are, as for `argosy serve`. [~/.cache/argosy]"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def archives(name: str) -> Any:
    """A part of the room artifacts/archives, imported now."""
    return resolve(_ARCHIVES, name, "part of archives")


def form_named(word: str) -> Any:
    """The form a flag names. Raises: InvalidRequest listing them."""
    if word not in _FORMS:
        raise InvalidRequest(f"--format is {word!r}: use mar, zip-store, tgz or folder", param="format")
    return archives("ArchiveForm")(_FORMS[word])


def target_path(output: Path, name: str, form: Any) -> Path:
    """The archive to write: `output` itself, or a file named after the model in the directory `output`."""
    suffix = archives("SUFFIXES")[form]
    is_named = output.name.endswith((".mar", ".tar.gz", ".tgz")) if suffix else not output.exists()
    directory = output.parent if is_named else output
    if not directory.is_dir():
        how = f", or name a file ending in {suffix}" if suffix and not is_named else ""
        raise InvalidRequest(f"--output: there is no directory {directory}: make it{how}", param="output")
    return output if is_named else output / f"{name}{suffix}"


def environments_of(store: Path | None) -> Path:
    """Where prepared environments are: the same place a server with this store looks at."""
    return store_root(store) / "environments"


def store_root(store: Path | None) -> Path:
    """The store a server with the same flag uses."""
    root: Path = store.expanduser() if store is not None else archives("default_store_root")()
    return root.absolute()


@contextmanager
def shown_bytes(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress in bytes on a terminal; nothing on a pipe."""
    bar = terminal.progress(*terminal.byte_columns())
    with bar:
        task = bar.add_task(escape(what), total=total)
        yield lambda size: bar.advance(task, size)
