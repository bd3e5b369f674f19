"""The devices of this machine: found, or declared in a file. GPUs are found through NVML where its library is.

A declared inventory is YAML:

    memory_bytes: 68719476736
    devices:
      - {name: "cpu:0", kind: cpu}
      - {name: "gpu:0", kind: gpu, memory_bytes: 25769803776}

The number in a name is the core's or the GPU's index on this machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from argosy.backends.local.placement import Machine
from argosy.core.errors import SpecError
from argosy.core.plugins import resolve
from argosy.core.resources import Device, DeviceKind

_LIBRARIES = {"nvml": "pynvml:nvmlInit"}
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Inventory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A declared machine. memory_bytes: 0 = do not count memory."""

    devices: tuple[Device, ...] = ()
    memory_bytes: int = 0


def machine(declared: Path | None) -> Machine:
    """The machine to place replicas on. Raises: SpecError if the file is wrong."""
    if declared is None:
        return Machine(devices=(*_cores(), *gpus()), memory_bytes=_memory_bytes())
    try:
        found = msgspec.yaml.decode(declared.read_bytes(), type=Inventory)
    except OSError as exc:
        raise SpecError(f"devices file {declared} cannot be read ({exc.strerror})") from exc
    except msgspec.DecodeError as exc:
        raise SpecError(f"devices file {declared} is wrong: {' '.join(str(exc).split())}") from exc
    names = [each.name for each in found.devices]
    for name in names:
        kind, colon, index = name.partition(":")
        if not colon or not kind or not index.isdigit() or names.count(name) > 1:
            raise SpecError(f"device {name!r} in {declared} is not a kind and an index of its own, such as cpu:0")
    return Machine(devices=found.devices, memory_bytes=found.memory_bytes)


def device_index(name: str) -> int:
    """The index in a device's name: `gpu:1` → 1."""
    return int(name.partition(":")[2])


def _cores() -> list[Device]:
    return [Device(name=f"cpu:{index}", kind=DeviceKind.CPU) for index in sorted(os.sched_getaffinity(0))]


def _memory_bytes() -> int:
    """Of the machine, or of the container we are in."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(total, int(_MEMORY_LIMIT.read_text()))
    except (OSError, ValueError):
        return total


def gpus() -> list[Device]:
    """NVIDIA GPUs, healthy or not; none without NVML."""
    nvml = _nvml()
    if nvml is None:
        return []
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        name = f"gpu:{index}"
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            total = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            found.append(Device(name=name, kind=DeviceKind.GPU, memory_bytes=total))
        except nvml.NVMLError as exc:
            found.append(Device(name=name, kind=DeviceKind.GPU, is_healthy=False, message=str(exc)))
    return found


def gpu_use(name: str) -> tuple[float, int] | None:
    """How busy a GPU is (0 to 1) and how many of its bytes are used; None if it does not say."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(device_index(name))
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        return busy, int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
    except nvml.NVMLError:
        return None


def _nvml() -> Any:
    """NVML's Python library, initialised; None without library or driver. Source: NVML API reference."""
    try:
        start = resolve(_LIBRARIES, "nvml", "library")
    except ImportError:
        return None
    library: Any = sys.modules[start.__module__]
    try:
        start()
    except library.NVMLError:
        return None
    return library
