"""Who watches what: each watcher holds at most one pending change per resource, however slowly it reads.

A newer state takes the place of the older one, so a slow reader misses states in between and never the last. What it
has not heard of and is gone again, it never hears of. So a watcher holds no more than the store does plus what its
reader still believes to exist, and no write ever waits for a reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Generic, TypeVar

from argosy.core.errors import StoreError
from argosy.core.interfaces import Change, Resource

R = TypeVar("R", bound=Resource)


class Watcher(Generic[R]):
    """One reader of one kind's changes."""

    def __init__(self) -> None:
        self._pending: dict[str, Change[R]] = {}
        self._told: set[str] = set()
        self._wake = asyncio.Event()
        self.is_over = False

    def offer(self, change: Change[R]) -> None:
        """Note a change. Never blocks."""
        name = change.resource.metadata.name
        if change.is_deleted and name not in self._told:
            self._pending.pop(name, None)
            return
        self._pending[name] = change  # an older one's place in the queue is kept, so no name starves
        self._wake.set()

    def end(self) -> None:
        """Nothing will change any more: the store is closed."""
        self.is_over = True
        self._wake.set()

    async def next(self) -> Change[R]:
        """The change that has waited longest. Cancels: loses none. Raises: StoreError once the store is closed."""
        while not self._pending:
            if self.is_over:
                raise StoreError("the store was closed while it was watched: open it again")
            self._wake.clear()
            await self._wake.wait()
        name = next(iter(self._pending))
        (self._told.discard if self._pending[name].is_deleted else self._told.add)(name)
        return self._pending.pop(name)


class Watchers:
    """All watchers of one store, by kind."""

    def __init__(self) -> None:
        self._by_kind: dict[type, list[Watcher[Resource]]] = {}

    def add(self, kind: type[R], watcher: Watcher[R], found: Iterable[R]) -> None:
        """From here on `watcher` hears of every change; first of all there is. Not if it has gone meanwhile."""
        if watcher.is_over:
            return
        for resource in found:
            watcher.offer(Change(resource=resource))
        self._by_kind.setdefault(kind, []).append(watcher)  # type: ignore[arg-type]

    def remove(self, kind: type[R], watcher: Watcher[R]) -> None:
        """It hears no more, even if it is only to be added."""
        watcher.end()
        self._by_kind[kind] = [each for each in self._by_kind.get(kind, []) if each is not watcher]

    def publish(self, changes: Iterable[Change[Resource]]) -> None:
        """Tell everyone, in the order of the writes."""
        for change in changes:
            for watcher in self._by_kind.get(type(change.resource), ()):
                watcher.offer(change)

    def end(self) -> None:
        """The store is closed."""
        for watchers in self._by_kind.values():
            for watcher in watchers:
                watcher.end()
