"""Desired state in one SQLite file: what was acknowledged survives any end of the process, and of the machine.

SqliteStore ──work──▶ WriterThread (writer.py): one thread, one transaction for all who wait
                          └─▶ tables.py: the SQL        schema.py: the file        records.py: what a write makes
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from argosy.core.interfaces import Change, Resource
from argosy.stores import tables
from argosy.stores.schema import open_database
from argosy.stores.watchers import Watcher, Watchers
from argosy.stores.writer import WriterThread

R = TypeVar("R", bound=Resource)


class SqliteStore:
    """`async with SqliteStore(path) as store:`. Made and used on one event loop; one process has the file at a time.

    A cancelled write may have happened or not: read before you repeat it.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """clock: unix seconds, for `created_at`."""
        self._clock = clock
        self._watchers = Watchers()
        self._writer = WriterThread(lambda: open_database(path), str(path))

    async def __aenter__(self) -> Self:
        """Raises: StoreError if the file cannot be used, with what to do."""
        await self._writer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes under way are finished; watches end with StoreError."""
        await self._writer.close()
        self._watchers.end()

    async def get(self, kind: type[R], name: str) -> R:
        """Raises: NotFound."""
        return await self._writer.run(lambda connection: tables.get(connection, kind, name), _nobody)

    async def list(self, kind: type[R]) -> list[R]:
        """All of a kind, by name."""
        return await self._writer.run(lambda connection: tables.read_all(connection, kind), _nobody)

    async def put(self, resource: R) -> R:
        """Create or replace; on the disk when it returns. Raises: Conflict, InvalidRequest."""
        now = self._clock()
        return await self._write(lambda connection: tables.put(connection, resource, now))

    async def put_status(self, resource: R) -> R:
        """Replace the status only. Raises: NotFound, Conflict, InvalidRequest."""
        return await self._write(lambda connection: tables.put_status(connection, resource))

    async def delete(self, kind: type[R], name: str) -> None:
        """Raises: NotFound."""
        await self._write(lambda connection: tables.delete(connection, kind, name))

    async def watch(self, kind: type[R]) -> AsyncGenerator[Change[R]]:
        """All there is, then every change. Cancels: stops watching. Raises: StoreError when the store is closed."""
        watcher: Watcher[R] = Watcher()
        try:
            await self._writer.run(
                lambda connection: tables.read_all(connection, kind),
                lambda found: self._watchers.add(kind, watcher, found),
            )
            while True:
                yield await watcher.next()
        finally:
            self._watchers.remove(kind, watcher)

    async def _write(self, work: Callable[[Any], tables.Written[R]]) -> R:
        written = await self._writer.run(work, lambda written: self._watchers.publish(written.changes))
        return written.resource


def _nobody(_: object) -> None:
    """Nobody watches a read."""
