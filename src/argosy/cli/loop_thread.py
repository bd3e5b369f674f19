"""An event loop in a thread of its own, for a command whose main thread reads the keyboard."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for the main thread; ^C there cancels the one it waits for."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="event-loop", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._loop.shutdown_asyncgens(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises: what it raises; KeyboardInterrupt after ^C, once `work` has been cancelled."""
        future = asyncio.run_coroutine_threadsafe(_told_when_done(work, done := threading.Event()), self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            done.wait()
            raise

    @contextmanager
    def entered(self, opening: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """What an async context manager gives. It is entered and left by one task, which lives as long as the block."""
        opened: Future[T] = Future()
        leave = asyncio.Event()
        holder = asyncio.run_coroutine_threadsafe(_hold(opening, opened, leave), self._loop)
        holder.add_done_callback(_pass_on(opened))
        try:
            yield opened.result()
        finally:
            self._loop.call_soon_threadsafe(leave.set)
            holder.result()


async def _told_when_done(work: Coroutine[Any, Any, T], done: threading.Event) -> T:
    try:
        return await work
    finally:
        done.set()


async def _hold(opening: AbstractAsyncContextManager[T], opened: Future[T], leave: asyncio.Event) -> None:
    async with opening as value:
        opened.set_result(value)
        await leave.wait()


def _pass_on(opened: Future[T]) -> Callable[[Future[None]], None]:
    """If opening failed, whoever waits for the value hears why."""

    def tell(holder: Future[None]) -> None:
        if not opened.done():
            opened.set_exception(holder.exception() or RuntimeError("left before it was entered"))

    return tell
