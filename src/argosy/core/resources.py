"""What one replica needs of a machine, and what a machine has."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Resources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The needs of one replica. Zero = not stated: any machine will do.

    cpu: cores, fractions allowed. gpus: whole devices. gpu_memory_bytes: a share of one device instead of all of it.
    Source: the resource names of Kubernetes.
    """

    cpu: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0
    gpu_memory_bytes: int = 0
    ephemeral_storage_bytes: int = 0


class DeviceKind(StrEnum):
    """What a device computes with."""

    CPU = "cpu"
    GPU = "gpu"


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that is given to replicas: a CPU core, a GPU.

    name: `cpu:0`, `gpu:1`. memory_bytes: its own memory; 0 for a core. is_healthy: an unhealthy one is given to nobody.
    """

    name: str
    kind: DeviceKind
    memory_bytes: int = 0
    is_healthy: bool = True
    message: str = ""


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A device and who holds it. used_ratio: how busy it is now, 0 to 1; None = unknown."""

    device: Device
    replicas: tuple[str, ...] = ()
    used_ratio: float | None = None
    used_memory_bytes: int | None = None
