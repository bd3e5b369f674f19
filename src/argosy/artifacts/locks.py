"""Locks between processes, by flock: the kernel drops them when a process dies, however it dies.

Two kinds: one lock per reference, so that two pulls of the same model become one pull and one wait; and the store's
own lock, shared by everybody who adds files and exclusive for whoever removes them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from argosy.core.errors import ArtifactError

POLL_SECONDS = 0.05


def _try_lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@asynccontextmanager
async def held(path: Path, *, shared: bool = False, on_wait: Callable[[], None] | None = None) -> AsyncIterator[None]:
    """Hold the lock at `path` inside the block, after waiting for it as long as it takes.

    on_wait: called once if somebody else holds it. Cancels: gives the lock back.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        if not _try_lock(descriptor, operation):
            if on_wait is not None:
                on_wait()
            while not _try_lock(descriptor, operation):  # noqa: ASYNC110 - the holder is another process
                await asyncio.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def held_now(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock at `path` alone inside the block. Raises: ArtifactError(busy) if somebody has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _try_lock(descriptor, fcntl.LOCK_EX):
            raise ArtifactError(busy, retryable=True)
        yield
    finally:
        os.close(descriptor)
