"""What whoever waits for a start is told."""

from __future__ import annotations

import asyncio

import pytest

from argosy.artifacts.progress import FetchPhase, FetchProgress
from argosy.server.composition import progress_text
from argosy.server.phases import HEARTBEAT_SECONDS, StartPhases

pytestmark = pytest.mark.anyio


async def test_a_heartbeat_says_what_runs_how_long_and_how_far() -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    phases = StartPhases(said.put_nowait, clock=lambda: 7.0)
    heartbeat = asyncio.create_task(phases.heartbeat(every_seconds=0.001))
    with phases.phase("model files"):
        progress = FetchProgress(
            file="a.gguf",
            bytes_done=25_000_000,
            bytes_total=100_000_000,
            bytes_per_second=5e6,
            eta_seconds=15.0,
            phase=FetchPhase.DOWNLOAD,
        )
        phases.detail("model files", progress_text(progress))
        async with asyncio.timeout(5):
            line = await said.get()
    heartbeat.cancel()
    assert line == "model files: 0 s · download a.gguf 25/100 MB, 5.0 MB/s, 15 s left"
    assert HEARTBEAT_SECONDS < 2


def test_the_table_ends_with_the_total() -> None:
    now = iter([0.0, 1.0, 3.5, 4.0])
    phases = StartPhases(lambda line: None, clock=lambda: next(now))
    with phases.phase("engine echo"):
        pass
    assert [line.split() for line in phases.table()] == [["engine", "echo", "2.50", "s"], ["total", "4.00", "s"]]
