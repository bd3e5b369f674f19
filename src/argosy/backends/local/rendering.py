"""Exactly what `apply` would run, as YAML for people. Pure. And how words of a command become a place to listen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from argosy.backends.local.inventory import device_index
from argosy.backends.local.placement import Grant
from argosy.backends.local.ports import HOST
from argosy.core.resources import Resources
from argosy.core.workload import HOST_WORD, PORT_WORD, Probe, Workload

_FREE_PORT = "<free port>"


def command(argv: Sequence[str], port: int | str) -> tuple[str, ...]:
    """The argv of one replica: `$(HOST)` and `$(PORT)` filled in, nothing else read, no shell (D-38)."""
    return tuple(word.replace(HOST_WORD, HOST).replace(PORT_WORD, str(port)) for word in argv)


def environment(inherited: Mapping[str, str], workload: Workload, grant: Grant) -> dict[str, str]:
    """What a replica's environment is: ours, the workload's, and the GPUs it may see."""
    gpus = sorted(device_index(name) for name in grant.devices if name.startswith("gpu:"))
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))} if gpus else {}
    return {**inherited, **workload.env, **visible}


def cores(grant: Grant) -> list[int]:
    """The cores of its own that a replica was given; empty = any."""
    return sorted(device_index(name) for name in grant.devices if name.startswith("cpu:"))


def render(workload: Workload) -> str:
    """The processes of a workload. Values that are only known when one starts stand in angle brackets."""
    content: dict[str, object] = {
        "name": workload.name,
        "labels": workload.labels,
        "processes": workload.replicas + workload.warm_spares,
        "of_these_kept_warm": workload.warm_spares,
        "argv": list(command(workload.argv, _FREE_PORT)),
        "environment_added": _added(workload),
        "devices": _devices(workload.resources),
        "limits": _limits(workload.resources),
        "ready_when": _probe(workload.readiness),
        "alive_while": _probe(workload.liveness),
        "start_timeout_seconds": workload.start_timeout_seconds,
        "shutdown_grace_seconds": workload.shutdown_grace_seconds,
        "all_or_none": workload.gang,
    }
    shown = {name: value for name, value in content.items() if value not in ({}, [], False)}
    return msgspec.yaml.encode(shown).decode()


def _added(workload: Workload) -> dict[str, str]:
    needs = workload.resources
    visible = {"CUDA_VISIBLE_DEVICES": "<GPUs given>"} if needs.gpus or needs.gpu_memory_bytes else {}
    return {**workload.env, **visible, "ARGOSY_REPLICA": "<token>"}


def _devices(needs: Resources) -> list[str]:
    lines = []
    if needs.cpu:
        of_its_own = needs.cpu == int(needs.cpu)
        lines.append(f"{needs.cpu:g} CPU cores {'of its own' if of_its_own else 'counted, shared with others'}")
    if needs.gpu_memory_bytes:
        lines.append(f"{needs.gpu_memory_bytes} bytes of memory on {max(needs.gpus, 1)} shared GPU(s)")
    elif needs.gpus:
        lines.append(f"{needs.gpus} GPU(s) of its own")
    return lines


def _limits(needs: Resources) -> dict[str, int]:
    return {"memory_bytes": needs.memory_bytes} if needs.memory_bytes else {}


def _probe(probe: Probe) -> str:
    return (
        f"GET http://{HOST}:{_FREE_PORT}{probe.path} answers 200; asked every {probe.period_seconds:g} s, "
        f"answer within {probe.timeout_seconds:g} s, {probe.failure_threshold} failures allowed"
    )
