"""The SQLite file of a store: how it is opened and checked, and how an older one becomes this version's.

The schema's version stands in the file (`PRAGMA user_version`). Opening brings an older file up to date in one
transaction: it is either wholly new or wholly as it was (F-24). A newer file is refused, and so is a damaged one or
another program's; each refusal says what to do.

Lasting is what was acknowledged: every commit is on the disk before it is answered (WAL, `synchronous=FULL`). One
process holds the file alone (`locking_mode=EXCLUSIVE`), which also spares the shared-memory file beside it.
Source: sqlite.org: wal.html ("Use of WAL Without Shared-Memory"), pragma.html.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from argosy.core.errors import StoreError
from argosy.stores.records import KINDS, decoded

Migration = Callable[[sqlite3.Connection], None]

_APPLICATION_ID = 0x4172676F  # "Argo"
_BUSY_SECONDS = 2.0
_MAX_WAL_BYTES = 16 * 2**20


def _first(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE resources (kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, "
        "family TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, name))"
    )
    connection.execute("CREATE INDEX resources_by_age ON resources (kind, version)")
    connection.execute("CREATE INDEX resources_of_family_by_age ON resources (kind, family, version)")
    connection.execute("CREATE TABLE sizes (scope TEXT PRIMARY KEY, records INTEGER NOT NULL)")
    connection.execute("CREATE TABLE counter (version INTEGER NOT NULL)")
    connection.execute("INSERT INTO counter VALUES (0)")


MIGRATIONS: tuple[Migration, ...] = (_first,)
"""The n-th makes version n of version n - 1; the first, of an empty file. What was released is never edited."""


def open_database(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> sqlite3.Connection:
    """The file, made if absent, checked and of this version. Raises: StoreError saying what to do."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise StoreError(
            f"the store {path} cannot be opened ({exc.strerror}): make its directory writable, "
            "or choose another --state"
        ) from exc
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        _check_sound(connection, path)
        _migrate(connection, path, migrations)
        _check_readable(connection)
    except sqlite3.Error as exc:
        connection.close()
        raise StoreError(
            f"the store {path} cannot be read ({exc}): see that its disk is well, or choose another --state"
        ) from exc
    except BaseException:
        connection.close()
        raise
    return connection


def _check_sound(connection: sqlite3.Connection, path: Path) -> None:
    """Raises: StoreError if another process has the file, or it is not one, or it is damaged."""
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA journal_size_limit={_MAX_WAL_BYTES}")
        findings = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.OperationalError as exc:
        raise StoreError(
            f"the store {path} cannot be used ({exc}): stop the process that has it open, give it a disk that has "
            "room and can be written, or choose another --state"
        ) from exc
    except sqlite3.DatabaseError as exc:
        mode, findings = "wal", [str(exc)]
    if findings != ["ok"]:
        raise StoreError(
            f"the store {path} is damaged ({'; '.join(map(str, findings))}): move it aside, start again and declare "
            "the services anew; replicas that run belong to no service then, and are ended"
        )
    if mode != "wal":
        raise StoreError(f"the store {path} lies where SQLite cannot keep a log beside it: choose another --state")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Bring the file to the newest version, or leave it as it is. Raises: StoreError."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION_ID and (tables or found or application):
        raise StoreError(f"{path} is a database of another program: choose another --state")
    newest = len(migrations)
    if found > newest:
        raise StoreError(
            f"the store {path} was written by a newer Argosy (schema {found}, this one knows {newest}): "
            "run that version or a later one, or choose another --state"
        )
    if found == newest:
        return
    try:
        connection.execute("BEGIN IMMEDIATE")
        for migration in migrations[found:]:
            migration(connection)
        connection.execute(f"PRAGMA user_version={newest}")
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute("COMMIT")
    except sqlite3.Error as exc:
        with suppress(sqlite3.Error):  # the failure may have rolled it back already
            connection.execute("ROLLBACK")
        raise StoreError(
            f"the store {path} could not be brought from schema {found} to {newest} ({exc}) and was left as it was: "
            "make room on its disk and start again, or run the version of Argosy that wrote it"
        ) from exc


def _check_readable(connection: sqlite3.Connection) -> None:
    """Raises: StoreError if a record is not what this version writes: known at the start, not in the middle."""
    for kind, name, body in connection.execute("SELECT kind, name, body FROM resources"):
        if kind not in KINDS:
            raise StoreError(
                f"the store holds a {kind!r} named {name!r}, which this version does not know: "
                "run the version of Argosy that wrote it, or choose another --state"
            )
        decoded(KINDS[kind].resource, name, body)
