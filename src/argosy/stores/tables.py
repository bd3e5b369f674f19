"""What a store does inside one transaction, in SQL. Values reach SQL as parameters only (D-20)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import msgspec

from argosy.core.interfaces import Change, Resource
from argosy.stores.records import (
    Kind,
    Retention,
    absent,
    after_put,
    after_put_status,
    as_deleted,
    decoded,
    encoded,
    kind_of,
)

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
_OLDEST = "SELECT name, body FROM resources WHERE kind = ? ORDER BY version LIMIT ?"
_OLDEST_OF_FAMILY = "SELECT name, body FROM resources WHERE kind = ? AND family = ? ORDER BY version LIMIT ?"
# How many records there are of what is not kept for ever: counted, because to count them each time takes longer.
_RESIZE = (
    "INSERT INTO sizes (scope, records) VALUES (?, ?) ON CONFLICT (scope) "
    "DO UPDATE SET records = records + excluded.records"
)
_SIZE = "SELECT records FROM sizes WHERE scope = ?"


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
    if kind.retention is not None and (current is None or kind.family(current) != kind.family(stored)):
        if current is not None:
            _resize(connection, kind, kind.family(current), -1)
        _resize(connection, kind, kind.family(stored), 1)
        changes += _forget_oldest(connection, kind, kind.family(stored), kind.retention)
    return Written(stored, tuple(changes))


def _erase(connection: sqlite3.Connection, last: Resource, version: int) -> Change[Resource]:
    kind = kind_of(type(last))
    connection.execute(_ERASE, (kind.name, last.metadata.name))
    connection.execute(_COUNT, (version,))
    if kind.retention is not None:
        _resize(connection, kind, kind.family(last), -1)
    return Change(resource=as_deleted(last, version), is_deleted=True)


def _forget_oldest(
    connection: sqlite3.Connection, kind: Kind, family: str, retention: Retention
) -> Iterator[Change[Resource]]:
    """Erase the records that are too many, the oldest writes: first those of the family, then those of all."""
    beyond = _size(connection, f"{kind.name}/{family}") - retention.max_per_family
    yield from _erase_all(connection, kind, _OLDEST_OF_FAMILY, (kind.name, family, max(0, beyond)))
    beyond = _size(connection, kind.name) - retention.max_records
    yield from _erase_all(connection, kind, _OLDEST, (kind.name, max(0, beyond)))


def _erase_all(
    connection: sqlite3.Connection, kind: Kind, query: str, values: tuple[str | int, ...]
) -> Iterator[Change[Resource]]:
    for name, body in connection.execute(query, values).fetchall():
        yield _erase(connection, decoded(kind.resource, name, body), _next_version(connection))


def _resize(connection: sqlite3.Connection, kind: Kind, family: str, by: int) -> None:
    connection.executemany(_RESIZE, [(kind.name, by), (f"{kind.name}/{family}", by)])


def _size(connection: sqlite3.Connection, scope: str) -> int:
    row = connection.execute(_SIZE, (scope,)).fetchone()
    return 0 if row is None else int(row[0])
