"""Workloads become running processes: each implementation of `core.interfaces.Backend` is one package here.

A backend is idempotent and level-triggered: it is told what should be, not what to do, and doing it twice is doing it
once. What it would submit is a pure function of the workload (`render`), so a dry run shows the same bytes. It says
what is, not what was asked for. Local processes and Kubernetes differ in this room only.

This room may not know services, rollouts or scaling: a `Workload` is all it sees. It holds no policy but how to start
again what has failed.

    roles.py     who takes requests, who is kept warm, who goes        (pure; shared)
    restarts.py  waits between starts, and what a crash loop is        (pure; shared)
    fake.py      rows in memory on a clock of the caller's
    local/       processes of this machine

`BACKENDS[name]` opens one: `async with resolve(BACKENDS, name, "backend")(BackendSpec(...)) as backend`.
Read first: `core/interfaces.py` (`Backend`), `roles.py`, then `local/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

BACKENDS: Mapping[str, str] = {
    "local": "argosy.backends.local.opening:open_local",
    "fake": "argosy.backends.fake:open_fake",
}


class BackendSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every backend is opened with.

    root: its own directory, which outlives it. logs: the directory of the replicas' logs. devices: a YAML file that
    declares devices instead of finding them. stop_replicas: end replicas when the backend is closed; else they go on
    and the next one to open `root` adopts them. standby_processes: how many warm processes per program to keep.
    """

    root: Path
    logs: Path
    devices: Path | None = None
    stop_replicas: bool = False
    standby_processes: int = 1
