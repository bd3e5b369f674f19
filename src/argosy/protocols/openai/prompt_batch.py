"""Several prompts in one request: their generations merged into one source of deltas.

A few run at a time, each with a permit of its own, so that a long list of prompts cannot fill the queue and shut
everybody else out. Answer j of prompt i is choice `i * n + j`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

import msgspec

from argosy.serving.delta import Delta, Usage
from argosy.serving.generation import Generation
from argosy.serving.timings import Timings

_MAX_PARALLEL = 16
_BUFFERED = 64


class PromptBatch:
    """Generations as one. Cancels: leaving aborts every generation before `__aexit__` returns.

    Raises: while iterating, what the first failing generation raises.
    """

    def __init__(self, generations: Sequence[Generation], answers_each: int) -> None:
        self._generations = generations
        self._answers_each = answers_each
        self._turns = asyncio.Semaphore(_MAX_PARALLEL)
        self._queue: asyncio.Queue[Delta | Exception] = asyncio.Queue(_BUFFERED)
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def usage(self) -> Usage:
        """Over all prompts."""
        usages = [generation.usage for generation in self._generations]
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in usages),
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            cached_tokens=sum(usage.cached_tokens for usage in usages),
        )

    @property
    def timings(self) -> Timings:
        """From the first prompt's arrival to the last one's end."""
        all_timings = [generation.timings for generation in self._generations]
        return Timings(
            arrived=min(each.arrived for each in all_timings),
            admitted=min((each.admitted for each in all_timings if each.admitted is not None), default=None),
            first_token=min((each.first_token for each in all_timings if each.first_token is not None), default=None),
            last_token=max((each.last_token for each in all_timings if each.last_token is not None), default=None),
            left=max((each.left for each in all_timings if each.left is not None), default=None),
        )

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._tasks = [
            self._group.create_task(self._pump(generation, position * self._answers_each))
            for position, generation in enumerate(self._generations)
        ]
        return self

    async def __aiter__(self) -> AsyncIterator[Delta]:
        unfinished = len(self._generations) * self._answers_each
        while unfinished:
            item = await self._queue.get()
            if isinstance(item, Exception):
                raise item
            unfinished -= item.finish_reason is not None
            yield item

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    async def _pump(self, generation: Generation, first_choice: int) -> None:
        try:
            async with self._turns, generation:
                async for delta in generation:
                    moved = msgspec.structs.replace(delta, choice=first_choice + delta.choice)
                    await self._queue.put(moved)
        except Exception as error:  # noqa: BLE001  # boundary: carried to the consumer, who raises it
            await self._queue.put(error)
