"""What is looked at now and then: memory limits (F-05), logs that have become large, how busy devices are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping

from argosy.backends.local.inventory import gpu_use
from argosy.backends.local.log_files import LogFiles
from argosy.backends.local.placement import Grant, Machine
from argosy.backends.local.replica import Replica
from argosy.backends.local.usage import core_ticks, group_use
from argosy.core.resources import DeviceKind, DeviceStatus
from argosy.core.workload import ReplicaUse

HOUSE_SECONDS = 0.5
_ROTATE_SECONDS = 10.0


class Housekeeping:
    """The looks, and what must be remembered between two of them."""

    def __init__(self, machine: Machine, logs: LogFiles) -> None:
        self._machine = machine
        self._logs = logs
        self._rotated_at = time.monotonic()
        self._ticks: dict[str, tuple[int, int]] = {}
        self._cpu: dict[int, tuple[float, float]] = {}

    async def look(self, replicas: Iterable[Replica]) -> None:
        """End replicas above their memory limit; rotate logs."""
        limited = [each for each in replicas if each.record.workload.resources.memory_bytes]
        groups = {each.process.pid for each in limited if each.process is not None}
        use = await asyncio.to_thread(group_use, groups) if groups else {}
        for replica in limited:
            limit = replica.record.workload.resources.memory_bytes
            taken = use.get(replica.process.pid) if replica.process is not None else None
            if taken is not None and taken.memory_bytes > limit:
                replica.kill_for(
                    "OutOfMemory",
                    f"it took {taken.memory_bytes / 2**20:.0f} MiB and may take {limit / 2**20:.0f} MiB: "
                    "raise resources.memory_bytes, or give the engine less",
                )
        if time.monotonic() - self._rotated_at >= _ROTATE_SECONDS:
            self._rotated_at = time.monotonic()
            await asyncio.to_thread(self._logs.rotate)

    def usage(self, groups: Mapping[str, int]) -> dict[str, ReplicaUse]:
        """What replicas take, by the pid that leads each one's group; CPU since the last call."""
        before, now, found = self._cpu, time.monotonic(), {}
        use = group_use(set(groups.values()))
        self._cpu = {pid: (now, each.cpu_seconds) for pid, each in use.items()}
        for name, pid in groups.items():
            if (each := use.get(pid)) is not None:
                at, cpu_seconds = before.get(pid, (now, 0.0))
                ratio = (each.cpu_seconds - cpu_seconds) / (now - at) if now > at else None
                found[name] = ReplicaUse(memory_bytes=each.memory_bytes, cpu_ratio=ratio)
        return found

    def devices(self, held: Mapping[str, Grant]) -> list[DeviceStatus]:
        """Every device, who holds it and how busy it was since the last call."""
        before, self._ticks = self._ticks, core_ticks()
        statuses = []
        for device in self._machine.devices:
            holders = tuple(name for name, grant in held.items() if device.name in grant.devices)
            used, used_bytes = None, None
            if device.kind is DeviceKind.GPU:
                used, used_bytes = gpu_use(device.name) or (None, None)
            elif device.name in self._ticks:
                busy, every = self._ticks[device.name]
                busy_before, every_before = before.get(device.name, (0, 0))
                used = (busy - busy_before) / max(1, every - every_before)
            statuses.append(
                DeviceStatus(device=device, replicas=holders, used_ratio=used, used_memory_bytes=used_bytes)
            )
        return statuses
