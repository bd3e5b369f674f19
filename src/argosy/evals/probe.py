"""How heavy the client was, how busy the machine, how large the server: read from the clock and from /proc.

A load generator that takes the server's cores measures itself. So each report says the client's CPU share, how
late its event loop ran, and how much time the hypervisor stole.
Source: proc_pid_stat(5), proc_stat(5), proc_pid_statm(5).
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

LAG_INTERVAL_SECONDS = 0.02
_SERVER_INTERVAL_SECONDS = 0.5
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CPU_COUNT = os.cpu_count() or 1


class MachineTimes(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of all cores since boot, in ticks; steal: taken by the hypervisor for others."""

    total: int = 0
    idle: int = 0
    steal: int = 0


def parse_machine_times(stat: str) -> MachineTimes:
    """The `cpu` line of /proc/stat."""
    fields = [int(field) for field in stat.partition("\n")[0].split()[1:9]]
    return MachineTimes(total=sum(fields), idle=fields[3] + fields[4], steal=fields[7])


def machine_times() -> MachineTimes:
    """Now; zeros where there is no /proc."""
    try:
        return parse_machine_times(Path("/proc/stat").read_text())
    except OSError:
        return MachineTimes()


def steal_ratio(before: MachineTimes, after: MachineTimes) -> float:
    """Share (0..1) of the machine's time between two readings that the hypervisor took."""
    total = after.total - before.total
    return (after.steal - before.steal) / total if total > 0 else 0.0


class ProcessUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A process and its descendants: resident memory now, CPU time since they began."""

    rss_bytes: int = 0
    cpu_seconds: float = 0.0


def process_tree(pid: int) -> list[int]:
    """`pid` and its living descendants."""
    found = [pid]
    for known in found:  # grows while we walk it
        for task in Path(f"/proc/{known}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def process_usage(pid: int) -> ProcessUsage:
    """Memory and CPU of `pid` and its descendants; zeros for what has ended. Shared pages count once per process."""
    rss = ticks = 0
    for member in process_tree(pid):
        try:
            rss += int(Path(f"/proc/{member}/statm").read_text().split()[1]) * _PAGE_BYTES
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ProcessUsage(rss_bytes=rss, cpu_seconds=ticks / _TICKS_PER_SECOND)


class ProbeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the probe saw. client_cpu_ratio: of all cores of the machine (0..1)."""

    client_cpu_ratio: float
    client_cpu_seconds: float
    lag_p50_seconds: float
    lag_p99_seconds: float
    steal_ratio: float
    server_rss_peak_bytes: int | None = None
    server_cpu_seconds: float | None = None


class Probe:
    """Watches client and server while a load runs: `run()` in a task, then `report()`."""

    def __init__(self, clock: Callable[[], float], server_pid: int | None) -> None:
        self._clock = clock
        self._server_pid = server_pid
        self._lags: list[float] = []
        self._rss_peak_bytes = 0
        self._began_at = clock()
        self._own_cpu = _own_cpu_seconds()
        self._machine = machine_times()
        self._server = process_usage(server_pid) if server_pid else ProcessUsage()

    async def run(self) -> None:
        """Sample until cancelled. Cancels: leaves nothing behind."""
        next_look = 0.0
        while True:
            expected = self._clock() + LAG_INTERVAL_SECONDS
            await asyncio.sleep(LAG_INTERVAL_SECONDS)
            now = self._clock()
            self._lags.append(max(0.0, now - expected))
            if self._server_pid and now >= next_look:
                self._rss_peak_bytes = max(self._rss_peak_bytes, process_usage(self._server_pid).rss_bytes)
                next_look = now + _SERVER_INTERVAL_SECONDS

    def report(self) -> ProbeReport:
        """What was seen since this probe was made."""
        wall = max(self._clock() - self._began_at, 1e-9)
        own = _own_cpu_seconds() - self._own_cpu
        lags = sorted(self._lags) or [0.0]
        server = process_usage(self._server_pid) if self._server_pid else None
        return ProbeReport(
            client_cpu_ratio=own / wall / _CPU_COUNT,
            client_cpu_seconds=own,
            lag_p50_seconds=lags[len(lags) // 2],
            lag_p99_seconds=lags[min(len(lags) - 1, len(lags) * 99 // 100)],
            steal_ratio=steal_ratio(self._machine, machine_times()),
            server_rss_peak_bytes=max(self._rss_peak_bytes, server.rss_bytes) if server else None,
            server_cpu_seconds=server.cpu_seconds - self._server.cpu_seconds if server else None,
        )


def _own_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def monotonic() -> float:
    """The clock of every measurement: it never goes back, and is finer than the event loop's own."""
    return time.perf_counter()
