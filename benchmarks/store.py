"""The store on one machine: durable writes per second, alone and together, and how soon a watcher hears of one.

Each write is on the disk before it is answered (WAL, synchronous=FULL), so one writer is as fast as the disk's fsync;
many at once share it. `fsync` is the disk alone: 4 KiB appended and synced, the floor of one write.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import msgspec

from argosy.core.inference_service import InferenceService, InferenceServiceSpec, RevisionTemplate
from argosy.core.interfaces import Change
from argosy.core.metadata import Metadata
from argosy.stores.sqlite import SqliteStore

_WRITES = 500
_TOGETHER = 1_000


def main(arguments: list[str]) -> int:
    """Print the figures. arguments: a directory on the disk to measure; none = where this is run."""
    with tempfile.TemporaryDirectory(dir=arguments[0] if arguments else ".") as directory:
        print(f"{'fsync of the disk':42} {_fsync_seconds(Path(directory)) * 1000:8.2f} ms")
        asyncio.run(_measure(Path(directory) / "store.sqlite"))
    return 0


def _fsync_seconds(directory: Path) -> float:
    descriptor = os.open(directory / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    seconds = []
    for _ in range(100):
        began = time.perf_counter()
        os.write(descriptor, b"x" * 4096)
        os.fdatasync(descriptor)
        seconds.append(time.perf_counter() - began)
    os.close(descriptor)
    return statistics.median(seconds)


async def _measure(path: Path) -> None:
    async with SqliteStore(path) as store:
        stored = await store.put(_service("one", 0))
        seconds = []
        for number in range(1, _WRITES):
            began = time.perf_counter()
            spec = _service("one", number).spec
            stored = await store.put(msgspec.structs.replace(stored, spec=spec))
            seconds.append(time.perf_counter() - began)
        _show("put, one writer", seconds)
        print(f"{'':42} {len(seconds) / sum(seconds):8.0f} /s")
        began = time.perf_counter()
        async with asyncio.TaskGroup() as writers:
            for number in range(_TOGETHER):
                writers.create_task(store.put(_service(f"many-{number}", number)))
        print(f"{f'put, {_TOGETHER} writers at once':42} {_TOGETHER / (time.perf_counter() - began):8.0f} /s")
        _show(f"list of {_TOGETHER + 1} services", [await _timed_list(store) for _ in range(20)])
        _show("put to watcher", await _watch_seconds(store))


async def _timed_list(store: SqliteStore) -> float:
    began = time.perf_counter()
    await store.list(InferenceService)
    return time.perf_counter() - began


async def _watch_seconds(store: SqliteStore) -> list[float]:
    """From the call of put to the change in another task's hands."""
    heard: list[float] = []
    began = 0.0
    async with aclosing(store.watch(InferenceService)) as changes:
        for _ in range(_TOGETHER + 1):
            await anext(changes)
        for number in range(200):
            waiting = asyncio.ensure_future(_next(changes))
            began = time.perf_counter()
            await store.put(_service(f"watched-{number}", number))
            heard.append(await waiting - began)
    return heard


async def _next(changes: object) -> float:
    change = await anext(changes)  # type: ignore[call-overload]
    assert isinstance(change, Change)
    return time.perf_counter()


def _service(name: str, number: int) -> InferenceService:
    spec = InferenceServiceSpec(template=RevisionTemplate(model=f"model-{number}"))
    return InferenceService(metadata=Metadata(name=name), spec=spec)


def _show(what: str, seconds: list[float]) -> None:
    cuts = statistics.quantiles(seconds, n=100)
    print(f"{what:42} {cuts[49] * 1000:8.2f} ms p50 {cuts[94] * 1000:8.2f} ms p95 {cuts[98] * 1000:8.2f} ms p99")
