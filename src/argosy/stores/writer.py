"""The one thread that touches the database: work goes in, answers come back to the event loop in the same order.

Who waits at the same time shares a transaction: a commit costs one wait for the disk, however many writes are in it.
Each piece of work stands in a savepoint of its own, so one that is refused takes nothing of the others with it; and if
the medium fails under all of them together, each is tried again alone, so that reading goes on beside writes that
fail (F-09). Nothing is answered before the commit.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from argosy.core.errors import ArgosyError, StoreError

T = TypeVar("T")
Connect = Callable[[], sqlite3.Connection]

_MAX_WAITING = 1_024
_MAX_TOGETHER = 128
_PATIENCE_SECONDS = 30.0


class _Job(msgspec.Struct, kw_only=True, eq=False):
    """Work, and who waits for it. deliver: called on the loop with the result, even if nobody waits any more."""

    work: Callable[[sqlite3.Connection], Any]
    deliver: Callable[[Any], None]
    waiter: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class WriterThread:
    """Runs work on a database, one piece after the other. Start it and close it on the same event loop."""

    def __init__(self, connect: Connect, path: str) -> None:
        self._connect = connect
        self._path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_MAX_WAITING)
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Open the database. Cancels: it is closed again. Raises: StoreError."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._live, args=(loop, opened), name="argosy-store", daemon=True)
        self._thread.start()
        try:
            await opened
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish the work that waits, close the database. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    async def run(self, work: Callable[[sqlite3.Connection], T], deliver: Callable[[T], None]) -> T:
        """What `work` returns, once it is on the disk; `deliver` has got it by then, in the order of the commits.

        Cancels: work not begun is dropped; work begun is done, and delivered.
        Raises: StoreError, and what `work` raises.
        """
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), self._room:
                if self._thread is None:
                    raise StoreError(f"the store {self._path} is closed: open it again")
                waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
                self._jobs.put(_Job(work=work, deliver=deliver, waiter=waiter))
                return await waiter
        except TimeoutError as exc:
            raise StoreError(
                f"the disk under {self._path} has not answered for {_PATIENCE_SECONDS:.0f} s: look at the disk; "
                "a write under way may still come to pass, so read before you repeat it"
            ) from exc

    def _live(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None]) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001  # boundary: a thread hands every error to who waits for it
            self._call(loop, _fail, opened, error)
            return
        self._call(loop, _succeed, opened)
        is_over = False
        while not is_over:
            jobs, is_over = self._take()
            self._perform(connection, jobs)
            self._call(loop, _answer, jobs)
        with suppress(sqlite3.Error):  # what was acknowledged is in the log, whether or not it can be folded in now
            connection.close()

    def _take(self) -> tuple[list[_Job], bool]:
        """The work that waits, and whether there will be no more."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        with suppress(queue.Empty):
            while job is not None:
                if not job.waiter.cancelled():
                    jobs.append(job)
                if len(jobs) >= _MAX_TOGETHER:
                    return jobs, False
                job = self._jobs.get_nowait()
            return jobs, True
        return jobs, False

    def _perform(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        """Leave a result or an error in each job."""
        try:
            _transact(connection, jobs)
        except sqlite3.Error:
            for job in jobs:
                try:
                    _transact(connection, [job])
                except sqlite3.Error as exc:
                    job.error = _medium_failed(self._path, exc)

    @staticmethod
    def _call(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(call, *arguments)


def _transact(connection: sqlite3.Connection, jobs: list[_Job]) -> None:
    """All jobs in one transaction. Raises: sqlite3.Error if it came to nothing."""
    if not jobs:
        return
    try:
        connection.execute("BEGIN")
        for job in jobs:
            _attempt(connection, job)
        connection.execute("COMMIT")
    except sqlite3.Error:
        with suppress(sqlite3.Error):  # some failures have rolled it back already
            connection.execute("ROLLBACK")
        raise


def _attempt(connection: sqlite3.Connection, job: _Job) -> None:
    """One job; if it is refused, nothing of it stays. Raises: sqlite3.Error."""
    job.result = job.error = None
    connection.execute("SAVEPOINT job")
    try:
        job.result = job.work(connection)
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001  # boundary: a thread hands every error to who waits for it
        job.error = error
        connection.execute("ROLLBACK TO job")
    connection.execute("RELEASE job")


def _medium_failed(path: str, exc: sqlite3.Error) -> ArgosyError:
    error = StoreError(
        f"the store {path} could not be read or written ({exc}) and is as it was: "
        "make room on its disk, or see that the disk is well and can be written"
    )
    error.__cause__ = exc
    return error


def _answer(jobs: list[_Job]) -> None:
    """On the loop: first who watches, then who waits."""
    for job in jobs:
        if job.error is None:
            job.deliver(job.result)
    for job in jobs:
        if job.waiter.done():
            continue
        if job.error is None:
            job.waiter.set_result(job.result)
        else:
            job.waiter.set_exception(job.error)


def _succeed(opened: asyncio.Future[None]) -> None:
    if not opened.done():
        opened.set_result(None)


def _fail(opened: asyncio.Future[None], error: Exception) -> None:
    if not opened.done():
        opened.set_exception(error)
