"""What a process that serves HTTP sets up for itself: logs, open files, a calm collector; and waits with many ends."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
from collections.abc import Coroutine
from typing import Any

from argosy.core.web_spec import LogFormat, WebSpec
from argosy.observe.logs import configure_logging

_COLLECT_AFTER = 50_000  # New objects between two collections; Python's own choice is 700.


def start_logging(spec: WebSpec) -> None:
    """Log as the spec says, from now on."""
    is_json = spec.log_format is LogFormat.JSON or (spec.log_format is LogFormat.AUTO and not sys.stderr.isatty())
    configure_logging(spec.log_level, is_json=is_json)


def allow_open_files() -> None:
    """Use as many file descriptors as this process may: many systems begin with 1,024, and each client takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def calm_collector() -> None:
    """Leave what the start made out of every later collection, and collect seldom.

    What is made per token holds no cycles; a collection in the middle of a step holds every stream up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when the first of several waits does; the others are cancelled. Cancels: all of them."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def ended(task: asyncio.Task[Any]) -> None:
    """Return once the task is over, however it ended. Cancels: the task goes on."""
    await asyncio.wait([task])
