from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from argosy.evals.probe import (
    MachineTimes,
    Probe,
    monotonic,
    parse_machine_times,
    process_tree,
    process_usage,
    steal_ratio,
)


def test_the_machine_line_of_proc_stat() -> None:
    found = parse_machine_times("cpu  100 1 50 800 9 0 0 40 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert found == MachineTimes(total=1000, idle=809, steal=40)
    assert steal_ratio(MachineTimes(), found) == 0.04
    assert steal_ratio(found, found) == 0


def test_a_process_is_measured_with_its_children() -> None:
    program = (
        "import subprocess, sys; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); "
        "sys.stdin.read(); c.kill()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert process_tree(parent.pid) == [parent.pid, child]
        assert process_usage(parent.pid).rss_bytes > process_usage(child).rss_bytes > 0
        parent.communicate("")


def test_a_process_that_is_gone_measures_zero() -> None:
    assert process_usage(2**22 + 1).rss_bytes == 0


@pytest.mark.anyio
async def test_the_probe_sees_a_blocked_loop() -> None:
    now = 0.0

    def clock() -> float:
        return now

    probe = Probe(clock, os.getpid())
    task = asyncio.ensure_future(probe.run())
    await asyncio.sleep(0)
    now = 0.5  # the sampling task will wake after 20 ms of its loop's time and find this
    await asyncio.sleep(0.1)  # five samples' time: the first sees the jump
    task.cancel()
    report = probe.report()
    assert report.lag_p99_seconds == pytest.approx(0.48)
    assert report.server_rss_peak_bytes is not None
    assert report.server_rss_peak_bytes > 1_000_000
    assert monotonic() <= monotonic()
