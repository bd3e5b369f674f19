"""Which devices a replica is given. Pure: needs, devices and what others hold go in; a grant, or why not, comes out.

- A whole number of cores is given as cores of its own, those whose neighbours are taken first, so that what is left
  lies together. A fraction is counted, but pinned nowhere.
- Whole GPUs go to one replica. Shares of GPU memory are packed: the fullest device that still has room.
- Unhealthy devices are given to nobody. Memory is counted against the machine's.
Source: the static CPU policy and the bin packing of Kubernetes (kubelet CPU manager, MostAllocated).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from argosy.core.errors import Unschedulable
from argosy.core.resources import Device, DeviceKind, Resources


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What there is. memory_bytes: 0 = not known, so never the reason to refuse."""

    devices: tuple[Device, ...] = ()
    memory_bytes: int = 0


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica holds: devices of its own or shares of them, by name, and what it was counted with."""

    devices: tuple[str, ...] = ()
    resources: Resources = Resources()


def place(needs: Resources, machine: Machine, held: Iterable[Grant]) -> Grant:
    """Devices for one more replica. Raises: Unschedulable naming what is needed and what is free."""
    grants = list(held)
    _require_memory(needs, machine, grants)
    cores = _cores(needs, machine, grants)
    gpus = _gpus(needs, machine, grants)
    return Grant(devices=(*cores, *gpus), resources=needs)


def place_all(needs: Resources, count: int, machine: Machine, held: Iterable[Grant]) -> list[Grant]:
    """Devices for `count` more replicas, or for none. Raises: Unschedulable."""
    grants = list(held)
    placed: list[Grant] = []
    for _ in range(count):
        placed.append(place(needs, machine, [*grants, *placed]))
    return placed


def _require_memory(needs: Resources, machine: Machine, held: Sequence[Grant]) -> None:
    free = machine.memory_bytes - sum(each.resources.memory_bytes for each in held)
    if machine.memory_bytes and needs.memory_bytes > free:
        raise Unschedulable(
            f"a replica needs {_gib(needs.memory_bytes)} of memory and {_gib(max(free, 0))} of "
            f"{_gib(machine.memory_bytes)} are not promised yet: lower resources.memory_bytes or remove replicas"
        )


def _cores(needs: Resources, machine: Machine, held: Sequence[Grant]) -> tuple[str, ...]:
    cores = [each.name for each in machine.devices if each.kind is DeviceKind.CPU and each.is_healthy]
    if not needs.cpu or not any(each.kind is DeviceKind.CPU for each in machine.devices):
        return ()
    taken = {name for grant in held for name in grant.devices}
    unpinned = [name for name in cores if name not in taken]
    fractions = sum(each.resources.cpu for each in held if not _is_whole(each.resources.cpu))
    free = len(unpinned) - fractions
    # Sums of fractions such as 0.1 are off by less than this.
    if needs.cpu > free + 1e-9:
        raise Unschedulable(
            f"a replica needs {needs.cpu:g} CPU cores and {max(free, 0):g} of {len(cores)} are free: "
            "lower resources.cpu or remove replicas"
        )
    if not _is_whole(needs.cpu):
        return ()
    return tuple(unpinned[: int(needs.cpu)])


def _gpus(needs: Resources, machine: Machine, held: Sequence[Grant]) -> tuple[str, ...]:
    if not needs.gpus and not needs.gpu_memory_bytes:
        return ()
    gpus = [each for each in machine.devices if each.kind is DeviceKind.GPU]
    free = _free_gpu_memory(gpus, held)
    wanted = max(needs.gpus, 1)
    if needs.gpu_memory_bytes:
        fitting = sorted((bytes_, name) for name, bytes_ in free.items() if bytes_ >= needs.gpu_memory_bytes)
        chosen = [name for _, name in fitting[:wanted]]
    else:
        whole = {each.name: each.memory_bytes for each in gpus}
        used = {name for grant in held for name in grant.devices}
        chosen = [name for name in free if name in whole and name not in used][:wanted]
    if len(chosen) < wanted:
        raise Unschedulable(_gpu_sentence(needs, gpus, free, len(chosen)))
    return tuple(chosen)


def _free_gpu_memory(gpus: Sequence[Device], held: Sequence[Grant]) -> dict[str, int]:
    """Bytes free on each healthy GPU; what a whole one is held by has none."""
    free = {each.name: each.memory_bytes for each in gpus if each.is_healthy}
    for grant in held:
        for name in grant.devices:
            if name in free:
                share = grant.resources.gpu_memory_bytes
                free[name] = max(0, free[name] - share) if share else 0
    return free


def _gpu_sentence(needs: Resources, gpus: Sequence[Device], free: Mapping[str, int], num_free: int) -> str:
    if needs.gpu_memory_bytes:
        most = max(free.values(), default=0)
        need = f"{_gib(needs.gpu_memory_bytes)} of memory on {max(needs.gpus, 1)} GPU(s)"
        have = f"the most that is free on one is {_gib(most)}" if gpus else "this machine has no GPU"
    else:
        need = f"{needs.gpus} GPU(s)"
        have = f"{num_free} of {len(gpus)} are free" if gpus else "this machine has none"
    ill = [f"{each.name} ({each.message or 'unhealthy'})" for each in gpus if not each.is_healthy]
    unused = f"; not used: {', '.join(ill)}" if ill else ""
    return f"a replica needs {need} and {have}{unused}: ask for less, or remove replicas"


def _is_whole(cpu: float) -> bool:
    return cpu == int(cpu)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
