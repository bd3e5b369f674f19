"""A backend whose replicas are rows in memory and whose time is the caller's: for tests and for the simulator.

It obeys the same laws as the real ones (tests/contract/test_backend.py). Nothing happens but when asked: every call
first lets happen what is due at `clock()`. Levers: `start_seconds`, `drain_seconds`, `capacity`, `failing`, `faults`,
and the methods `crash`, `hang` and `recover`. 10,000 replicas are listed in a millisecond, as only changed workloads
are built anew.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec

from argosy.backends import BackendSpec
from argosy.backends.changes import Changes
from argosy.backends.names import NUM_SUFFIXES, replica_name
from argosy.backends.restarts import DEFAULT_RESTARTS, crashes_after, is_crash_loop, restart_delay_seconds
from argosy.backends.roles import Member, assign_roles, is_same_command
from argosy.core.errors import ArgosyError, NotFound
from argosy.core.workload import ReplicaPhase, ReplicaStatus, Workload, WorkloadStatus

_LOG_LINES = 100
_SHORTEST_WAIT_SECONDS = 0.01


class _Replica:
    """One row, the workload it was made for, and the number of its last planned change: earlier plans are void."""

    def __init__(self, status: ReplicaStatus, workload: Workload, order: int) -> None:
        self.status, self.workload, self.order = status, workload, order
        self.crashes = self.plan = 0
        self.log: deque[str] = deque(maxlen=_LOG_LINES)

    def member(self, is_current: bool) -> Member:
        """What `assign_roles` asks of it."""
        status = self.status
        is_ready = status.phase is ReplicaPhase.READY
        return Member(
            name=status.name, order=self.order, is_ready=is_ready, is_spare=status.is_spare, is_current=is_current
        )


class FakeBackend:
    """Implements `core.interfaces.Backend` without running anything.

    start_seconds: of a replica, per workload. capacity: replicas that can run at once; more are pending.
    failing: names of workloads whose replicas end before they are ready. faults: errors the next calls raise, in turn.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.start_seconds: Callable[[Workload], float] = lambda workload: 1.0
        self.drain_seconds = 0.5
        self.capacity = 1_000_000
        self.failing: set[str] = set()
        self.faults: deque[ArgosyError] = deque()
        self._clock = clock
        self._workloads: dict[str, Workload] = {}
        self._replicas: defaultdict[str, dict[str, _Replica]] = defaultdict(dict)
        self._statuses: dict[str, WorkloadStatus] = {}
        self._dirty: dict[str, None] = {}  # A set whose order is that of the changes.
        self._due: list[tuple[float, int, str, str]] = []
        self._numbers = count()
        self._pending: deque[_Replica] = deque()
        self._num_placed = 0
        self._changes = Changes()
        self._seen = 0

    def render(self, workload: Workload) -> str:
        """The workload itself, as YAML."""
        return msgspec.yaml.encode(workload).decode()

    async def apply(self, workload: Workload) -> None:
        """As in the interface; replicas are `starting` at once and ready after `start_seconds`."""
        self._enter()
        self._workloads[workload.name] = workload
        self._settle(workload.name)

    async def delete(self, name: str) -> None:
        """As in the interface; replicas drain for `drain_seconds`."""
        self._enter()
        self._workloads.pop(name, None)
        self._settle(name)

    async def list(self) -> list[WorkloadStatus]:
        """As in the interface."""
        self._enter()
        for name in self._dirty:
            workload, replicas = self._workloads.get(name), self._replicas[name]
            if workload is None and not replicas:
                self._replicas.pop(name)
                self._statuses.pop(name, None)
                continue
            shown = workload or next(iter(replicas.values())).workload
            is_short = any(each.status.phase is ReplicaPhase.PENDING for each in replicas.values())
            self._statuses[name] = WorkloadStatus(
                name=name,
                labels=shown.labels,
                desired_replicas=workload.replicas if workload else 0,
                replicas=tuple(each.status for each in replicas.values()),
                reason="Unschedulable" if is_short else "",
                message=f"{self._num_placed} of {self.capacity} places are taken" if is_short else "",
            )
        self._dirty.clear()
        return [*self._statuses.values()]

    async def logs(self, name: str, replica: str, *, follow: bool) -> AsyncGenerator[str]:
        """As in the interface; a replica that is gone has no log any more."""
        row = self._row(name, replica)
        seen = 0
        while True:
            for line in [*row.log][seen:]:
                seen += 1
                yield line
            if not follow or row.status.name not in self._replicas.get(name, {}):
                return
            await self._beyond(self._changes.level)

    async def changed(self) -> None:
        """As in the interface; also returns when, by `clock`, the next change is due."""
        self._seen = await self._beyond(self._seen)

    def advance(self) -> float | None:
        """Let happen what is due by now; the time of the next change, None if nothing is planned."""
        now = self._clock()
        self._start_pending()
        touched = set()
        while self._due and self._due[0][0] <= now:
            at, plan, workload, name = heapq.heappop(self._due)
            row = self._replicas[workload].get(name)
            if row is not None and row.plan == plan:
                self._happen(row, at)
                touched.add(workload)
        for workload in sorted(touched):
            self._settle(workload)
        return self._due[0][0] if self._due else None

    def crash(self, name: str, replica: str, exit_code: int = -9) -> None:
        """End the replica's process; it is started again after a wait."""
        self.advance()
        self._fail(self._row(name, replica), self._clock(), exit_code)
        self._settle(name)

    def hang(self, name: str, replica: str) -> None:
        """Make a ready replica unready until `recover`."""
        self._set(self._row(name, replica), phase=ReplicaPhase.UNREADY, reason="ProbeFailed", message="no answer")
        self._settle(name)

    def recover(self, name: str, replica: str) -> None:
        """Make an unready replica ready."""
        self._set(self._row(name, replica), phase=ReplicaPhase.READY, reason="", message="")
        self._settle(name)

    async def _beyond(self, level: int) -> int:
        wait = max(_SHORTEST_WAIT_SECONDS, self._due[0][0] - self._clock()) if self._due else None
        try:
            async with asyncio.timeout(wait):
                return await self._changes.beyond(level)
        except TimeoutError:
            self.advance()
            return self._changes.level

    def _enter(self) -> None:
        if self.faults:
            raise self.faults.popleft()
        self.advance()

    def _row(self, name: str, replica: str) -> _Replica:
        try:
            return self._replicas.get(name, {})[replica]
        except KeyError:
            raise NotFound(f"workload {name!r} has no replica {replica!r}") from None

    def _settle(self, name: str) -> None:
        """Start what the workload lacks, drain what it has too much, give every replica its role."""
        workload, rows = self._workloads.get(name), self._replicas[name]
        wanted = (workload.replicas, workload.warm_spares) if workload else (0, 0)
        if workload is not None:
            for _ in range(assign_roles(self._members(name), *wanted).missing):
                self._create(workload)
        roles = assign_roles(self._members(name), *wanted)
        for each in roles.active:
            self._set(rows[each], is_spare=False)
        for each in roles.spare:
            self._set(rows[each], is_spare=True)
        for each in roles.drain:
            self._drain(rows[each])
        self._dirty[name] = None
        self._changes.fire()

    def _members(self, name: str) -> Iterator[Member]:
        present = self._workloads.get(name)
        for row in self._replicas[name].values():
            if row.status.phase is not ReplicaPhase.DRAINING:
                is_current = present is not None and is_same_command(row.workload, present)
                yield row.member(is_current)

    def _create(self, workload: Workload) -> None:
        order = next(self._numbers)
        name = replica_name(workload.name, order % NUM_SUFFIXES)
        row = _Replica(ReplicaStatus(name=name, phase=ReplicaPhase.PENDING, reason="Unschedulable"), workload, order)
        self._replicas[workload.name][name] = row
        self._pending.append(row)
        self._start_pending()

    def _start_pending(self) -> None:
        while self._pending and self._num_placed < self.capacity:
            row = self._pending.popleft()
            if row.status.phase is ReplicaPhase.PENDING:
                self._num_placed += 1
                self._start(row, self._clock())

    def _start(self, row: _Replica, at: float) -> None:
        address = f"{row.status.name}:80"
        why = row.status.message if row.status.restarts else ""
        self._set(row, phase=ReplicaPhase.STARTING, reason="", message=why, address=address, started_at=at)
        row.log.append(f"starting {' '.join(row.workload.argv)}")
        self._plan(row, at + self.start_seconds(row.workload))

    def _happen(self, row: _Replica, at: float) -> None:
        match row.status.phase:
            case ReplicaPhase.STARTING if row.workload.name in self.failing:
                self._fail(row, at, exit_code=1)
            case ReplicaPhase.STARTING:
                row.log.append("ready")
                self._set(row, phase=ReplicaPhase.READY, message="", ready_at=at)
            case ReplicaPhase.BACKOFF:
                self._start(row, at)
            case ReplicaPhase.DRAINING:
                self._remove(row)

    def _fail(self, row: _Replica, at: float, exit_code: int) -> None:
        if row.status.phase is ReplicaPhase.DRAINING:
            self._remove(row)
            return
        ready_seconds = 0.0 if row.status.ready_at is None else at - row.status.ready_at
        row.crashes = crashes_after(DEFAULT_RESTARTS, row.crashes, ready_seconds)
        row.log.append(f"ended with exit code {exit_code}")
        self._set(
            row,
            phase=ReplicaPhase.BACKOFF,
            reason="CrashLoop" if is_crash_loop(DEFAULT_RESTARTS, row.crashes) else "Crashed",
            message=row.log[-1],
            restarts=row.status.restarts + 1,
            last_exit_code=exit_code,
            address=None,
            ready_at=None,
        )
        self._plan(row, at + restart_delay_seconds(DEFAULT_RESTARTS, row.crashes, chance=0.0))

    def _drain(self, row: _Replica) -> None:
        if row.status.phase is ReplicaPhase.PENDING:
            self._replicas[row.workload.name].pop(row.status.name)
            return
        self._set(row, phase=ReplicaPhase.DRAINING, reason="", message="")
        self._plan(row, self._clock() + self.drain_seconds)

    def _remove(self, row: _Replica) -> None:
        self._replicas[row.workload.name].pop(row.status.name)
        self._num_placed -= 1
        self._start_pending()

    def _plan(self, row: _Replica, at: float) -> None:
        row.plan = next(self._numbers)
        heapq.heappush(self._due, (at, row.plan, row.workload.name, row.status.name))

    def _set(self, row: _Replica, **changes: Any) -> None:
        row.status = msgspec.structs.replace(row.status, **changes)
        self._dirty[row.workload.name] = None
        self._changes.fire()


@asynccontextmanager
async def open_fake(spec: BackendSpec) -> AsyncIterator[FakeBackend]:
    """A fake that follows the real clock and leaves nothing behind; nothing of `spec` concerns it."""
    yield FakeBackend()
