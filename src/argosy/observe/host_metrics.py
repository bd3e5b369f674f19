"""CPU, memory and disk of this machine as Linux tells them: what TorchServe's system metrics show.

A figure that cannot be read is left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

_MB, _GB = 2**20, 2**30
_KB = 1024


class HostFigures:
    """Reads the machine's figures at most once per interval; between two reads the last ones stand."""

    def __init__(
        self,
        publish: Callable[[str, float], None],
        *,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        root: Path = Path("/"),
    ) -> None:
        """publish: takes a metric's name and its value. root: where /proc is, and whose disk is meant."""
        self._publish = publish
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._root = root
        self._due = 0.0
        self._ticks = self._cpu_ticks()

    def sample(self) -> None:
        """Publish the figures, if they are due."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self._interval_seconds
        for figures in (self._cpu(), self._memory(), self._disk()):
            for name, value in figures.items():
                self._publish(name, round(value, 2))

    def _cpu(self) -> dict[str, float]:
        """The busy share of all cores since the last read."""
        before, self._ticks = self._ticks, self._cpu_ticks()
        if before is None or self._ticks is None:
            return {}
        busy, total = self._ticks[0] - before[0], self._ticks[1] - before[1]
        return {"CPUUtilization": 100.0 * busy / total if total > 0 else 0.0}

    def _cpu_ticks(self) -> tuple[int, int] | None:
        """(busy, all) since the machine started. Source: proc_stat(5), the line `cpu`; 4 idle, 5 waiting for disks."""
        try:
            first = (self._root / "proc/stat").read_text("ascii").partition("\n")[0]
            ticks = [int(number) for number in first.split()[1:9]]
        except (OSError, ValueError):
            return None
        return (sum(ticks) - ticks[3] - ticks[4], sum(ticks)) if len(ticks) == 8 else None

    def _memory(self) -> dict[str, float]:
        try:
            lines = (self._root / "proc/meminfo").read_text("ascii").splitlines()
            sizes = {name: int(rest.split()[0]) * _KB for name, _, rest in (line.partition(":") for line in lines)}
            total, available = sizes["MemTotal"], sizes["MemAvailable"]
        except (OSError, ValueError, KeyError, IndexError):
            return {}
        used = total - available
        return {
            "MemoryUsed": used / _MB,
            "MemoryAvailable": available / _MB,
            "MemoryUtilization": 100.0 * used / total if total else 0.0,
        }

    def _disk(self) -> dict[str, float]:
        try:
            disk = os.statvfs(self._root)
        except OSError:
            return {}
        total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        share = 100.0 * used / (used + free) if total and used + free else 0.0
        return {"DiskUsage": used / _GB, "DiskAvailable": free / _GB, "DiskUtilization": share}
