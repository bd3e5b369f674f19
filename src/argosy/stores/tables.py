"""What a store does inside one transaction, in SQL. Values reach SQL as parameters only (D-20)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from argosy.core.interfaces import Change, Resource
from argosy.stores.records import Kind, absent, after_put, after_put_status, as_deleted, decoded, encoded, kind_of

R = TypeVar("R", bound=Resource)

_FIND = "SELECT body FROM resources WHERE kind = ? AND name = ?"
_ALL = "SELECT name, body FROM resources WHERE kind = ? ORDER BY name"
_WRITE = (
    "INSERT INTO resources (kind, name, version, family, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, name) "
    "DO UPDATE SET version = excluded.version, family = excluded.family, body = excluded.body"
)
_ERASE = "DELETE FROM resources WHERE kind = ? AND name = ?"
_VERSION = "SELECT version FROM counter"
_COUNT = "UPDATE counter SET version = ?"
_BEYOND = "SELECT name, body FROM resources WHERE kind = ? ORDER BY version DESC LIMIT -1 OFFSET ?"
_BEYOND_IN_FAMILY = (
    "SELECT name, body FROM resources WHERE kind = ? AND family = ? ORDER BY version DESC LIMIT -1 OFFSET ?"
)


class Written(msgspec.Struct, Generic[R], frozen=True):
    """What a write made, and all it changed, in order."""

    resource: R
    changes: tuple[Change[Resource], ...] = ()


def find(connection: sqlite3.Connection, kind: type[R], name: str) -> R | None:
    """The resource of that name, if there is one."""
    row = connection.execute(_FIND, (kind_of(kind).name, name)).fetchone()
    return None if row is None else decoded(kind, name, row[0])


def get(connection: sqlite3.Connection, kind: type[R], name: str) -> R:
    """Raises: NotFound."""
    found = find(connection, kind, name)
    if found is None:
        raise absent(kind, name)
    return found


def read_all(connection: sqlite3.Connection, kind: type[R]) -> list[R]:
    """All of a kind, by name."""
    return [decoded(kind, name, body) for name, body in connection.execute(_ALL, (kind_of(kind).name,))]


def put(connection: sqlite3.Connection, resource: R, now: float) -> Written[R]:
    """Create or replace. Raises: Conflict, InvalidRequest."""
    return _write(connection, resource, lambda current, version: after_put(current, resource, version, now))


def put_status(connection: sqlite3.Connection, resource: R) -> Written[R]:
    """Replace the status only. Raises: NotFound, Conflict, InvalidRequest."""
    return _write(connection, resource, lambda current, version: after_put_status(current, resource, version))


def delete(connection: sqlite3.Connection, kind: type[R], name: str) -> Written[R]:
    """Raises: NotFound."""
    last = get(connection, kind, name)
    return Written(last, (_erase(connection, last, _next_version(connection)),))


def _next_version(connection: sqlite3.Connection) -> int:
    """The number of the next write."""
    return int(connection.execute(_VERSION).fetchone()[0]) + 1


def _write(connection: sqlite3.Connection, given: R, decide: Callable[[R | None, int], R]) -> Written[R]:
    encoded(given)  # before anything is looked up: what cannot be written cannot be a parameter either
    kind, version = kind_of(type(given)), _next_version(connection)
    current = find(connection, type(given), given.metadata.name)
    stored = decide(current, version)
    if stored is current:
        return Written(stored)
    row = (kind.name, stored.metadata.name, version, kind.family(stored), encoded(stored))
    connection.execute(_WRITE, row)
    connection.execute(_COUNT, (version,))
    changes: list[Change[Resource]] = [Change(resource=stored)]
    for each in _beyond_retention(connection, kind, stored):
        version += 1
        changes.append(_erase(connection, each, version))
    return Written(stored, tuple(changes))


def _erase(connection: sqlite3.Connection, last: Resource, version: int) -> Change[Resource]:
    connection.execute(_ERASE, (kind_of(type(last)).name, last.metadata.name))
    connection.execute(_COUNT, (version,))
    return Change(resource=as_deleted(last, version), is_deleted=True)


def _beyond_retention(connection: sqlite3.Connection, kind: Kind, added: Resource) -> list[Resource]:
    """The records that are too many, the oldest writes, now that `added` is there."""
    if kind.retention is None:
        return []
    asked = [
        (_BEYOND_IN_FAMILY, (kind.name, kind.family(added), kind.retention.max_per_family)),
        (_BEYOND, (kind.name, kind.retention.max_records)),
    ]
    rows = {name: body for query, values in asked for name, body in connection.execute(query, values)}
    return [decoded(kind.resource, name, body) for name, body in rows.items()]
