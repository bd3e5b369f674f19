"""The Backend socket over processes of this machine: how many replicas there are, and which of them take requests."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

import msgspec

from argosy.backends.changes import Changes
from argosy.backends.local import rendering
from argosy.backends.local.adoption import LeftBehind
from argosy.backends.local.housekeeping import HOUSE_SECONDS, Housekeeping
from argosy.backends.local.launcher import Launcher
from argosy.backends.local.log_files import LogFiles
from argosy.backends.local.placement import Machine, place_all
from argosy.backends.local.processes import Process
from argosy.backends.local.records import Records, ReplicaRecord
from argosy.backends.local.replica import Replica
from argosy.backends.local.settings import LocalSettings
from argosy.backends.local.standby import standby_program
from argosy.backends.names import NUM_SUFFIXES, replica_name
from argosy.backends.roles import Member, assign_roles, is_same_command
from argosy.core.errors import BackendError, InvalidRequest, NotFound, SpecError, Unschedulable
from argosy.core.model import require_name
from argosy.core.resources import DeviceStatus
from argosy.core.workload import ReplicaPhase, ReplicaUse, Workload, WorkloadStatus

logger = logging.getLogger(__name__)

_MAX_PROBES = 64
_ADOPTION_SECONDS = 1.0
_RETRY_SECONDS = 1.0

T = TypeVar("T")

# Inside the class `list` is the socket's method.
_DeviceStatuses = list[DeviceStatus]


class LocalBackend:
    """Implements `core.interfaces.Backend`, `DeviceReports` and `UsageReports`. Made by `open_local`."""

    def __init__(
        self,
        records: Records,
        logs: LogFiles,
        launcher: Launcher,
        machine: Machine,
        *,
        settings: LocalSettings,
        clock: Callable[[], float],
    ) -> None:
        """clock: unix seconds, for people only."""
        self.settings = settings
        self.clock = clock
        self.probes = asyncio.Semaphore(_MAX_PROBES)
        self._records = records
        self._logs = logs
        self._launcher = launcher
        self._machine = machine
        self._workloads: dict[str, Workload] = {}
        self._replicas: dict[str, Replica] = {}
        self._orders = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changes = Changes()
        self._seen = 0
        self._writing = asyncio.Lock()
        self._is_settling = False
        self._housekeeping = Housekeeping(machine, logs)
        # One thread: records are written in the order in which they were given, also by tasks cancelled meanwhile.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="argosy-records")

    def render(self, workload: Workload) -> str:
        """As in the interface."""
        return rendering.render(workload)

    async def apply(self, workload: Workload) -> None:
        """As in the interface. Raises: SpecError if names or command cannot be used."""
        _require_runnable(workload)
        place_all(workload.resources, workload.replicas if workload.gang else 1, self._machine, ())
        async with self._writing:
            if self._workloads.get(workload.name) != workload:
                await self._write(self._records.save_workload, workload)
                self._workloads[workload.name] = workload
            self._settle(workload.name)

    async def delete(self, name: str) -> None:
        """As in the interface."""
        async with self._writing:
            if name in self._workloads:
                # The record first: if that fails the workload is still asked for, and whoever asks again finds it so.
                await self._write(self._records.forget_workload, name)
                del self._workloads[name]
            self._settle(name)

    async def list(self) -> list[WorkloadStatus]:
        """As in the interface."""
        by_workload: dict[str, list[Replica]] = {name: [] for name in self._workloads}
        for replica in self._replicas.values():
            by_workload.setdefault(replica.record.workload.name, []).append(replica)
        return [self._status(name, replicas) for name, replicas in by_workload.items()]

    async def logs(self, name: str, replica: str, *, follow: bool) -> AsyncGenerator[str]:
        """As in the interface; also of replicas that are gone, as long as their files are kept."""
        for word in (name, replica):
            try:
                require_name(word, "replica")
            except InvalidRequest as exc:
                raise NotFound(exc.message) from exc

        def is_over() -> bool:
            return not follow or replica not in self._replicas

        async for line in self._logs.lines(name, replica, is_over=is_over):
            yield line

    async def changed(self) -> None:
        """As in the interface; what changed since the last call is not lost."""
        self._seen = await self._changes.beyond(self._seen)

    async def devices(self) -> _DeviceStatuses:
        """As in `DeviceReports`."""
        held = {replica.name: replica.record.grant for replica in self._replicas.values()}
        return await asyncio.to_thread(self._housekeeping.devices, held)

    async def usage(self) -> Mapping[str, ReplicaUse]:
        """As in `UsageReports`."""
        groups = {each.name: each.process.pid for each in self._replicas.values() if each.process is not None}
        return await asyncio.to_thread(self._housekeeping.usage, groups)

    def start(self, record: ReplicaRecord, on_exit: Callable[[], None]) -> Process:
        """For `Replica`: start the process of an intent. Raises: OSError."""
        return self._launcher.start(record, on_exit)

    def intent(self, record: ReplicaRecord) -> ReplicaRecord:
        """For `Replica`: the record of its next start. Raises: BackendError."""
        return self._launcher.intent(record, {each.record.port for each in self._replicas.values()})

    async def save(self, record: ReplicaRecord) -> None:
        """For `Replica`: remember it. Raises: BackendError."""
        await self._write(self._records.save_replica, record)

    def tail(self, record: ReplicaRecord) -> Sequence[str]:
        """For `Replica`: its last words."""
        return self._logs.tail(record.workload.name, record.name)

    def moved(self, replica: Replica) -> None:
        """For `Replica`: its phase has changed."""
        self._settle(replica.record.workload.name)

    async def open(self, left: LeftBehind) -> None:
        """Go on with what an earlier backend left; returns when every replica has been looked at. Call it once."""
        self._workloads = {each.name: each for each in left.workloads}
        self._orders = count(max((each.order for each in left.replicas), default=-1) + 1)
        adopted = [self._adopted(record) for record in left.replicas]
        await self._first_look([each for each in adopted if each.process is not None and not each.is_draining])
        self._is_settling = True
        for replica in adopted:
            self._add(replica)
        for name in {*self._workloads, *(each.record.workload.name for each in adopted)}:
            self._settle(name)
        self._begin(self._keep_house())

    async def close(self, *, stop_replicas: bool) -> None:
        """Leave all replicas running, or drain and end them all. Cancels: those that still run stay on record."""
        self._is_settling = False
        try:
            if stop_replicas:
                for replica in self._replicas.values():
                    replica.drain()
                while self._replicas:
                    await self.changed()
        finally:
            tasks = [*self._tasks]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            self._launcher.standby.close()
            for replica in self._replicas.values():
                with suppress(BackendError):  # the next one then knows a little less
                    await replica.save()
            await asyncio.to_thread(self._writer.shutdown)

    def _adopted(self, record: ReplicaRecord) -> Replica:
        """The replica of a record found again, with its process if that still runs."""
        process = None
        if record.process is not None:
            try:
                process = Process(record.process, record.token, lambda: None)
            except ProcessLookupError:  # it ended since it was found
                record = msgspec.structs.replace(record, process=None)
        replica = Replica(record, self, process)
        replica.is_granted = True
        logger.info("adopted replica", extra={"replica": record.name, "is_running": process is not None})
        return replica

    async def _first_look(self, replicas: Iterable[Replica]) -> None:
        """Ask all once, so that the first list says how they are; those that do not answer in time come later."""
        looks = [asyncio.ensure_future(replica.probe()) for replica in replicas]
        if looks:
            _, late = await asyncio.wait(looks, timeout=_ADOPTION_SECONDS)
            for look in late:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    async def _write(self, write: Callable[[T], None], what: T) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, write, what)

    def _settle(self, name: str) -> None:
        """Start what the workload lacks, drain what it has too much, give every replica its role."""
        if not self._is_settling:
            return
        workload = self._workloads.get(name)
        wanted = (workload.replicas, workload.warm_spares) if workload else (0, 0)
        if workload is not None:
            for replica in self._of(name):
                if is_same_command(replica.record.workload, workload):
                    replica.follow(workload)
            for _ in range(assign_roles(self._members(name), *wanted).missing):
                self._create(workload)
        roles = assign_roles(self._members(name), *wanted)
        for each in roles.active:
            self._replicas[each].set_spare(False)
        for each in roles.spare:
            self._replicas[each].set_spare(True)
        for each in roles.drain:
            self._replicas[each].drain()
        self._grant_waiting()
        self._fill_standby()
        self._changes.fire()

    def _of(self, name: str) -> Sequence[Replica]:
        return [each for each in self._replicas.values() if each.record.workload.name == name]

    def _members(self, name: str) -> Iterable[Member]:
        present = self._workloads.get(name)
        for replica in self._of(name):
            if not replica.is_draining:
                yield replica.member(present is not None and is_same_command(replica.record.workload, present))

    def _create(self, workload: Workload) -> None:
        name = replica_name(workload.name, secrets.randbelow(NUM_SUFFIXES))
        while name in self._replicas:
            name = replica_name(workload.name, secrets.randbelow(NUM_SUFFIXES))
        record = ReplicaRecord(name=name, order=next(self._orders), workload=workload)
        self._add(Replica(record, self))

    def _add(self, replica: Replica) -> None:
        self._replicas[replica.name] = replica
        self._begin(self._lead(replica))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _lead(self, replica: Replica) -> None:
        """A replica through its life, and out of the lists. Cancels: leaves its process running."""
        try:
            is_over = False
            while not is_over:
                is_over = await self._lived(replica)
        finally:
            replica.release()
        del self._replicas[replica.name]
        workload = replica.record.workload.name
        try:
            await self._write(self._forget, replica)
        except BackendError as exc:
            logger.warning("record cannot be removed", extra={"replica": replica.name, "error": exc.message})
        self._settle(workload)
        self._changes.fire()

    async def _lived(self, replica: Replica) -> bool:
        try:
            await replica.live()
        except Exception:  # boundary: the supervisor; a mistake of ours about one replica must not leave it alone
            logger.exception("supervision failed", extra={"replica": replica.name})
            await asyncio.sleep(_RETRY_SECONDS)
            return False
        return True

    def _forget(self, replica: Replica) -> None:
        self._records.forget_replica(replica.name)
        workload = replica.record.workload.name
        self._logs.prune(workload, [*self._replicas])
        if workload not in self._workloads and not self._of(workload):
            self._logs.remove(workload)

    def _grant_waiting(self) -> None:
        """Give devices to those who wait, in the order of their coming; a gang gets all it needs, or nothing."""
        held = [each.record.grant for each in self._replicas.values() if each.is_granted]
        refused: dict[str, Unschedulable] = {}
        for replica in [each for each in self._replicas.values() if not each.is_granted and not each.is_draining]:
            workload = replica.record.workload
            if replica.is_granted or workload.name in refused:
                continue
            gang = [each for each in self._of(workload.name) if not each.is_granted] if workload.gang else [replica]
            try:
                grants = place_all(workload.resources, len(gang), self._machine, held)
            except Unschedulable as exc:
                refused[workload.name] = exc
                continue
            held += grants
            for each, grant in zip(gang, grants, strict=True):
                each.grant(grant)
        for replica in self._replicas.values():
            if not replica.is_granted and (reason := refused.get(replica.record.workload.name)) is not None:
                replica.wait_for("Unschedulable", reason.message)

    def _fill_standby(self) -> None:
        """A new warm process, unless a replica is starting: it needs the cores more."""
        if not any(each.phase is ReplicaPhase.STARTING or not each.is_granted for each in self._replicas.values()):
            programs = {standby_program(each) for each in self._workloads.values()}
            self._launcher.standby.fill({each for each in programs if each is not None})

    def _status(self, name: str, replicas: Sequence[Replica]) -> WorkloadStatus:
        workload = self._workloads.get(name)
        shown = workload or replicas[0].record.workload
        statuses = tuple(each.status() for each in replicas)
        short = next((each for each in statuses if each.phase is ReplicaPhase.PENDING and each.reason), None)
        return WorkloadStatus(
            name=name,
            labels=shown.labels,
            desired_replicas=workload.replicas if workload else 0,
            replicas=statuses,
            reason=short.reason if short else "",
            message=short.message if short else "",
        )

    async def _keep_house(self) -> None:
        """Once a second: memory limits, large logs, standby processes. Never ends by itself."""
        while True:
            await asyncio.sleep(HOUSE_SECONDS)
            try:
                await self._housekeeping.look(self._replicas.values())
                self._fill_standby()
            except Exception:  # boundary: the supervisor
                logger.exception("housekeeping failed")


def _require_runnable(workload: Workload) -> None:
    try:
        require_name(workload.name, "workload")
    except InvalidRequest as exc:
        raise SpecError(exc.message) from exc
    if not workload.argv or "\0" in "".join((*workload.argv, *workload.env, *workload.env.values())):
        raise SpecError(f"workload {workload.name!r} has no command that can be run: its argv is {workload.argv!r}")
    if workload.replicas < 0 or workload.warm_spares < 0:
        raise SpecError(f"workload {workload.name!r} asks for less than no replicas: use 0 or more")
