"""A store that forgets everything when the process ends: for tests and simulations. It obeys every law of `Store`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from argosy.core.interfaces import Change, Resource
from argosy.stores.records import absent, after_put, after_put_status, as_deleted, encoded, kind_of
from argosy.stores.watchers import Watcher, Watchers

R = TypeVar("R", bound=Resource)


class MemoryStore:
    """Resources in dictionaries, the last written last. Nothing in it waits."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._version = 0
        self._kinds: dict[type, dict[str, Any]] = {}
        self._sizes: Counter[tuple[type, str]] = Counter()
        self._watchers = Watchers()

    async def get(self, kind: type[R], name: str) -> R:
        """Raises: NotFound."""
        found: R | None = self._of(kind).get(name)
        if found is None:
            raise absent(kind, name)
        return found

    async def list(self, kind: type[R]) -> list[R]:
        """All of a kind, by name."""
        return [self._of(kind)[name] for name in sorted(self._of(kind))]

    async def put(self, resource: R) -> R:
        """Create or replace. Raises: Conflict, InvalidRequest."""
        encoded(resource)
        current: R | None = self._of(type(resource)).get(resource.metadata.name)
        return self._keep(current, after_put(current, resource, self._version + 1, self._clock()))

    async def put_status(self, resource: R) -> R:
        """Replace the status only. Raises: NotFound, Conflict, InvalidRequest."""
        encoded(resource)
        current: R | None = self._of(type(resource)).get(resource.metadata.name)
        return self._keep(current, after_put_status(current, resource, self._version + 1))

    async def delete(self, kind: type[R], name: str) -> None:
        """Raises: NotFound."""
        self._drop(await self.get(kind, name))

    async def watch(self, kind: type[R]) -> AsyncGenerator[Change[R]]:
        """All there is, then every change. Cancels: stops watching."""
        watcher: Watcher[R] = Watcher()
        self._watchers.add(kind, watcher, await self.list(kind))
        try:
            while True:
                yield await watcher.next()
        finally:
            self._watchers.remove(kind, watcher)

    def _of(self, kind: type) -> dict[str, Any]:
        return self._kinds.setdefault(kind, {})

    def _keep(self, current: R | None, stored: R) -> R:
        if stored is current:
            return stored
        self._version += 1
        kind, name, family = type(stored), stored.metadata.name, kind_of(type(stored)).family
        if self._of(kind).pop(name, None) is not None:
            self._sizes[kind, family(current)] -= 1
        self._of(kind)[name] = stored
        self._sizes[kind, family(stored)] += 1
        self._watchers.publish([Change(resource=stored)])
        self._retain(kind, family(stored))
        return stored

    def _retain(self, kind: type, family: str) -> None:
        row, rows = kind_of(kind), self._of(kind)
        if row.retention is not None and self._sizes[kind, family] > row.retention.max_per_family:
            self._drop(next(each for each in rows.values() if row.family(each) == family))
        if row.retention is not None and len(rows) > row.retention.max_records:
            self._drop(next(iter(rows.values())))

    def _drop(self, last: Resource) -> None:
        self._version += 1
        del self._of(type(last))[last.metadata.name]
        self._sizes[type(last), kind_of(type(last)).family(last)] -= 1
        self._watchers.publish([Change(resource=as_deleted(last, self._version), is_deleted=True)])
