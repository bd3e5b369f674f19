"""A local backend is opened: alone in its directory, and with what an earlier one left running there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from argosy.backends import BackendSpec
from argosy.backends.local import inventory
from argosy.backends.local.adoption import LeftBehind, match
from argosy.backends.local.backend import LocalBackend
from argosy.backends.local.launcher import Launcher
from argosy.backends.local.log_files import LogFiles
from argosy.backends.local.processes import ProcessIdentity, boot_id, is_alive, kill_group_of, token_bearers
from argosy.backends.local.records import Records
from argosy.backends.local.settings import LocalSettings
from argosy.core.errors import BackendError

logger = logging.getLogger(__name__)

_LOCK_TRIES = 50
_LOCK_PAUSE_SECONDS = 0.02
_STRAY_POLLS = 100
_STRAY_POLL_SECONDS = 0.02


@asynccontextmanager
async def open_local(
    spec: BackendSpec, *, settings: LocalSettings | None = None, clock: Callable[[], float] = time.time
) -> AsyncIterator[LocalBackend]:
    """The local backend of a directory, with the replicas an earlier one left there.

    Raises: BackendError if another one has it open or the directory cannot be used; SpecError for a devices file.
    """
    machine = await asyncio.to_thread(inventory.machine, spec.devices)
    records = Records(spec.root)
    identity = await _locked(records, spec)
    logs = LogFiles(spec.logs)
    launcher = Launcher(identity, logs, spec.standby_processes)
    backend = LocalBackend(records, logs, launcher, machine, settings=settings or LocalSettings(), clock=clock)
    try:
        await backend.open(await _find(records, launcher.token_prefix))
        yield backend
    finally:
        try:
            await backend.close(stop_replicas=spec.stop_replicas)
        finally:
            records.close()


async def _locked(records: Records, spec: BackendSpec) -> str:
    """The identity, once we have the directory alone. Raises: BackendError if another one keeps it."""
    for _ in range(_LOCK_TRIES):
        identity = await asyncio.to_thread(records.open)
        if identity is not None:
            return identity
        await asyncio.sleep(_LOCK_PAUSE_SECONDS)
    raise BackendError(
        f"another process runs the replicas of {spec.root}: stop it, or choose another --state directory",
        retryable=False,
    )


async def _find(records: Records, token_prefix: str) -> LeftBehind:
    """What is on record and runs; what is ours and on no record is ended first, so that nothing runs twice."""
    found = await asyncio.to_thread(token_bearers, token_prefix)
    workloads, replicas = await asyncio.to_thread(lambda: (records.workloads(), records.replicas()))
    adoption = match(replicas, found, boot_id())
    await _end_all(adoption.strays)
    for record in adoption.finished:
        await asyncio.to_thread(records.forget_replica, record.name)
    alive = sorted((*adoption.running, *adoption.ended), key=lambda each: each.order)
    return LeftBehind(workloads=tuple(workloads), replicas=tuple(alive))


async def _end_all(strays: Sequence[ProcessIdentity]) -> None:
    """End them with their groups, and wait a moment until what they held is free."""
    for each in strays:
        logger.warning("ended a process that is on no record", extra={"pid": each.pid})
        kill_group_of(each.pid)
    for _ in range(_STRAY_POLLS):
        if not any(is_alive(each) for each in strays):
            return
        await asyncio.sleep(_STRAY_POLL_SECONDS)
