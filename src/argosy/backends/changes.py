"""A count of changes that can be waited for: whoever remembers the level it saw last misses nothing."""

from __future__ import annotations

import asyncio


class Changes:
    """Rises by one with each change. Any number of waiters, each with its own memory."""

    def __init__(self) -> None:
        self.level = 0
        self._risen = asyncio.Event()

    def fire(self) -> None:
        """Something has changed."""
        self.level += 1
        self._risen.set()
        self._risen = asyncio.Event()

    async def beyond(self, level: int) -> int:
        """The level, once it is above `level`. Cancels: stops waiting."""
        while self.level <= level:
            await self._risen.wait()
        return self.level
