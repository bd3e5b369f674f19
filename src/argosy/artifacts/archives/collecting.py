"""`argosy archive gc`: what archives that are gone or were replaced have left below the root of `opening.py`.

A server holds the users' lock, shared, as long as it lives, and a collection holds it alone. So nothing that is in use
is ever taken, and a server that starts meanwhile waits for the moment this takes.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from argosy.artifacts.archives.opening import SeenRecord, decoded, look_of
from argosy.artifacts.locks import held_now
from argosy.artifacts.store import Reclaimed
from argosy.core.errors import NotFound

# What this room puts below its root; anything else there is somebody else's.
_OURS = ("files", "records", "partial")


def users_lock(root: Path) -> Path:
    """The lock that every server on this root holds, shared. Makes the root."""
    root.mkdir(parents=True, exist_ok=True)
    return root / "users"


def collect_archives(root: Path, *, dry_run: bool) -> Reclaimed:
    """Remove what no archive that still looks as it did is unpacked to. Raises: ArtifactError while a server runs."""
    if not root.is_dir():
        return Reclaimed(files=(), size_bytes=0)
    busy = f"a server uses {root}: stop it first, or collect later"
    with held_now(users_lock(root), busy):
        seen = {path: decoded(path, SeenRecord) for path in _entries(root / "seen")}
        stale = [path for path, record in seen.items() if record is None or not _holds(record)]
        kept = {record.digest.removeprefix("sha256:") for path, record in seen.items() if record and path not in stale}
        garbage = [
            path
            for directory in _OURS
            for path in _entries(root / directory)
            if directory == "partial" or path.name.removesuffix(".json") not in kept
        ]
        freed = sum(_size(path) for path in garbage)
        if not dry_run:
            for path in [*stale, *garbage]:
                _remove(path)
    return Reclaimed(files=tuple(str(path) for path in garbage), size_bytes=freed)


def _holds(record: SeenRecord) -> bool:
    with contextlib.suppress(NotFound, OSError):
        return look_of(Path(record.path)) == record.look
    return False


def _entries(directory: Path) -> Iterator[Path]:
    yield from sorted(directory.iterdir()) if directory.is_dir() else ()


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(each.lstat().st_size for each in path.rglob("*") if each.is_file())
    return path.lstat().st_size


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
