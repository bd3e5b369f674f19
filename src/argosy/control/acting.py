"""Carries a decision out, write by write, in the order that a crash at any point leaves something to go on from.

revision → workloads → events → status → old revisions. What was told to the backend is remembered, so that a decision
that changes nothing costs no call; after a restart everything is told once more, which is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeVar

import msgspec

from argosy.control.events import write_event
from argosy.control.notes import Note
from argosy.control.observer import LoopObserver
from argosy.control.services import Decision
from argosy.control.settings import ControlSettings
from argosy.core.errors import NotFound
from argosy.core.inference_service import InferenceService, InferenceServiceStatus, Revision
from argosy.core.interfaces import Backend, Store
from argosy.core.workload import ReplicaPhase, Workload, WorkloadStatus

T = TypeVar("T")


class Actor:
    """The hands of the loop. Not for concurrent use."""

    def __init__(self, store: Store, backend: Backend, settings: ControlSettings, observer: LoopObserver) -> None:
        self._store, self._backend, self._settings, self._observer = store, backend, settings, observer
        self._told: dict[str, Workload | None] = {}

    async def create_revision(self, revision: Revision) -> Revision:
        """Store a revision. Raises: Conflict if its number is taken, StoreError."""
        return await self._bounded(self._store.put(revision))

    async def run(self, decision: Decision, statuses: Iterable[WorkloadStatus]) -> None:
        """Tell the backend what it does not know yet. Raises: BackendError."""
        known = {each.name: each for each in statuses}
        for workload in decision.apply:
            if not self._is_told(workload, known.get(workload.name)):
                self._told.pop(workload.name, None)
                await self._bounded(self._backend.apply(workload))
                self._told[workload.name] = workload
        for name in decision.delete:
            await self.end(name, known)

    async def end(self, name: str, known: Mapping[str, WorkloadStatus]) -> None:
        """Delete a workload, once: while its replicas drain there is nothing to repeat."""
        status = known.get(name)
        is_draining = status is not None and all(each.phase is ReplicaPhase.DRAINING for each in status.replicas)
        if name in self._told and self._told[name] is None and is_draining and status is not None and status.replicas:
            return
        self._told.pop(name, None)
        await self._bounded(self._backend.delete(name))
        self._told[name] = None

    async def tell(self, service: str, notes: Iterable[Note], now: float) -> None:
        """Store events. Raises: StoreError."""
        for note in notes:
            await self._bounded(write_event(self._store, service, note, now))
            self._observer.told(service, note.reason.value)

    async def write_status(self, service: InferenceService, status: InferenceServiceStatus) -> InferenceService:
        """Store the status if it changed. Raises: Conflict, NotFound, StoreError."""
        if status == service.status:
            return service
        return await self._bounded(self._store.put_status(msgspec.structs.replace(service, status=status)))

    async def delete_revisions(self, revisions: Iterable[Revision]) -> None:
        """Forget revisions; those that are gone already are no error. Raises: StoreError."""
        for each in revisions:
            try:
                await self._bounded(self._store.delete(Revision, each.metadata.name))
            except NotFound:
                continue

    def forget(self, present: Iterable[str]) -> None:
        """Keep no memory of workloads that are gone."""
        kept = set(present)
        for name in [name for name, told in self._told.items() if told is None and name not in kept]:
            del self._told[name]

    def tell_again(self) -> None:
        """Compare with nothing remembered: at a resync, and after the backend was away."""
        self._told.clear()

    def _is_told(self, workload: Workload, status: WorkloadStatus | None) -> bool:
        is_same = status is not None and status.desired_replicas == workload.replicas
        return is_same and self._told.get(workload.name) == workload

    async def _bounded(self, call: Awaitable[T]) -> T:
        """Every call has a deadline. Raises: TimeoutError."""
        async with asyncio.timeout(self._settings.call_seconds):
            return await call
