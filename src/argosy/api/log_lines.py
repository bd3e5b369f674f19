"""The logs of several replicas as one text, each line under its replica's name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from argosy.core.errors import ArgosyError
from argosy.core.interfaces import Backend

Place = tuple[str, str]
"""The names of a workload and of one of its replicas."""

_MAX_BUFFERED_LINES = 1_000


async def log_lines(backend: Backend, places: Sequence[Place], *, follow: bool) -> AsyncGenerator[str]:
    """The lines of one replica as they are; of several, one replica after the other, or as they come if followed.

    Cancels: stops following all. Raises: NotFound for a single replica; of several, the others go on.
    """
    if len(places) == 1:
        async with aclosing(backend.logs(*places[0], follow=follow)) as lines:
            async for line in lines:
                yield line
    elif follow:
        async with aclosing(_together(backend, places)) as lines:
            async for line in lines:
                yield line
    else:
        for place in places:
            async with aclosing(_named(backend, place, follow=False)) as lines:
                async for line in lines:
                    yield line


async def _named(backend: Backend, place: Place, *, follow: bool) -> AsyncGenerator[str]:
    try:
        async with aclosing(backend.logs(*place, follow=follow)) as lines:
            async for line in lines:
                yield f"{place[1]} | {line}"
    except (ArgosyError, OSError) as error:
        yield f"{place[1]} | (the log ends here: {error})"


async def _together(backend: Backend, places: Sequence[Place]) -> AsyncGenerator[str]:
    """Lines of all as they come. None of them runs further ahead than the buffer."""
    lines: asyncio.Queue[str | None] = asyncio.Queue(_MAX_BUFFERED_LINES)
    tasks = [asyncio.create_task(_pour(_named(backend, place, follow=True), lines)) for place in places]
    try:
        num_open = len(tasks)
        while num_open:
            line = await lines.get()
            if line is None:
                num_open -= 1
            else:
                yield line
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _pour(source: AsyncGenerator[str], into: asyncio.Queue[str | None]) -> None:
    async with aclosing(source) as lines:
        async for line in lines:
            await into.put(line)
    await into.put(None)
