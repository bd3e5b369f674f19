"""Several things at once, failing as one: the first error comes out as itself, not wrapped in a group."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run everything concurrently; the results, in order. Cancels: all of it, before returning.

    Raises: the first error of any, after the others were cancelled; its group is its cause.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as errors:
        first: Exception = errors
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from errors
    return [task.result() for task in tasks]
