"""Memory and CPU time of process groups, and how busy cores are: one pass over /proc for all of them."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from argosy.backends.local.processes import all_stats

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_CPU_FILE = Path("/proc/stat")


class GroupUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the processes of one group take together: resident memory and CPU time since they began."""

    memory_bytes: int = 0
    cpu_seconds: float = 0.0


def group_use(groups: Collection[int]) -> dict[int, GroupUse]:
    """The use of each of these groups; those without a process are left out."""
    memory = dict.fromkeys(groups, 0)
    ticks = dict.fromkeys(groups, 0)
    for stat in all_stats():
        if stat.group in memory:
            memory[stat.group] += stat.resident_pages * _PAGE_BYTES
            ticks[stat.group] += stat.cpu_ticks
    return {
        group: GroupUse(memory_bytes=memory[group], cpu_seconds=ticks[group] / _TICKS_PER_SECOND)
        for group in groups
        if memory[group]
    }


def core_ticks() -> dict[str, tuple[int, int]]:
    """Per core, `cpu:0` and so on: ticks it was busy, and all ticks. Source: proc(5), /proc/stat."""
    found = {}
    for line in _CPU_FILE.read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(field) for field in fields[:8]]
            idle = ticks[3] + ticks[4]
            found[f"cpu:{name.removeprefix('cpu')}"] = (sum(ticks) - idle, sum(ticks))
    return found
