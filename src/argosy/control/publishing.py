"""The one route table, and who waits for the next one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

from argosy.core.routing import RouteTable, ServiceRoute


class Publisher:
    """Holds the newest table. A version is given only when something changed; the epoch is ours alone."""

    def __init__(self) -> None:
        self.table = RouteTable(epoch=secrets.token_hex(8))
        self._changed = asyncio.Event()

    def publish(self, services: Iterable[ServiceRoute]) -> None:
        """Replace the table, if it differs. The first one counts even if it is empty."""
        made = tuple(services)
        if self.table.version and made == self.table.services:
            return
        self.table = RouteTable(epoch=self.table.epoch, version=self.table.version + 1, services=made)
        self._changed.set()
        self._changed = asyncio.Event()

    async def newer(self, version: int) -> RouteTable:
        """The table, once it is newer than `version`. Cancels: nothing."""
        while self.table.version <= version:
            await self._changed.wait()
        return self.table
