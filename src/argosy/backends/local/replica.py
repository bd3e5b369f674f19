"""One replica's life: placed, started, attended, started again when it ends, drained when it shall go.

`live()` is that life as one coroutine; cancelling it leaves the process running, for the next control plane to adopt.
The order of every start is: record the intent with a new token, start the process with that token, record the process.
Whatever moment we are killed at, the record or the token finds the process again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from argosy.backends.local import health
from argosy.backends.local.health import Health, Verdict
from argosy.backends.local.placement import Grant
from argosy.backends.local.ports import HOST, is_taken
from argosy.backends.local.processes import Process
from argosy.backends.local.records import ReplicaRecord
from argosy.backends.local.rounds import ask_round
from argosy.backends.local.settings import LocalSettings
from argosy.backends.restarts import crashes_after, is_crash_loop, restart_delay_seconds
from argosy.backends.roles import Member
from argosy.core.errors import BackendError
from argosy.core.workload import ReplicaPhase, ReplicaStatus, Workload

logger = logging.getLogger(__name__)

_GROUP_POLLS = 100
_GROUP_POLL_SECONDS = 0.02
_LAST_WORDS_CHARS = 100
# More in a row are no bad luck: the program itself keeps the port.
_MAX_PORT_CLASHES = 5

_CAUSES = {
    Verdict.HUNG: ("Hung", "it gave no answer for {silence:.1f} s"),
    Verdict.SICK: ("LivenessFailed", "{path} was refused {failures} times in a row"),
    Verdict.LATE: ("StartTimeout", "it was not ready within {start:g} s"),
}


class Place(Protocol):
    """What a replica asks of the backend it lives in."""

    settings: LocalSettings
    probes: asyncio.Semaphore
    clock: Callable[[], float]

    def start(self, record: ReplicaRecord, on_exit: Callable[[], None]) -> Process:
        """Start the record's process. Raises: OSError, BackendError."""
        ...

    def intent(self, record: ReplicaRecord) -> ReplicaRecord:
        """The record of its next start: a new token, a free port, the next number. Raises: BackendError."""
        ...

    async def save(self, record: ReplicaRecord) -> None:
        """Remember it. Raises: BackendError."""
        ...

    def tail(self, record: ReplicaRecord) -> Sequence[str]:
        """The last lines of its log."""
        ...

    def moved(self, replica: Replica) -> None:
        """Its phase has changed."""
        ...


class Replica:
    """A record, the process it names, and how both are."""

    def __init__(self, record: ReplicaRecord, place: Place, process: Process | None = None) -> None:
        """process: of an adopted one."""
        self.record = record
        self.phase = ReplicaPhase.PENDING
        self.reason = ""
        self.message = ""
        self.process = process
        self.health: Health = health.fresh(time.monotonic())
        self._place = place
        self._news = asyncio.Event()
        self._cause: tuple[str, str] | None = None
        self._saved: ReplicaRecord | None = None
        self._port_clashes = 0
        self.is_granted = False
        if process is not None:
            process.on_exit = self._news.set
            self.phase = ReplicaPhase.STARTING
            age = max(0.0, place.clock() - (record.started_at or place.clock()))
            self.health = health.fresh(time.monotonic(), age)
            if record.ready_at is not None:
                self.phase = ReplicaPhase.UNREADY
                self.health = msgspec.structs.replace(self.health, has_been_ready=True)
        if record.drained_at is not None:
            self.phase = ReplicaPhase.DRAINING

    @property
    def name(self) -> str:
        """Unique in the backend."""
        return self.record.name

    @property
    def is_draining(self) -> bool:
        """Whether it shall go, or goes."""
        return self.record.drained_at is not None

    @property
    def _has_ended(self) -> bool:
        return self.process is None or self.process.has_exited

    def status(self) -> ReplicaStatus:
        """As the interface shows it."""
        record = self.record
        process = None if self._has_ended else self.process
        return ReplicaStatus(
            name=record.name,
            phase=self.phase,
            address=f"{HOST}:{record.port}" if process else None,
            is_spare=record.is_spare,
            reason=self.reason,
            message=self.message,
            restarts=record.restarts,
            last_exit_code=record.last_exit_code,
            process_id=process.pid if process else None,
            devices=record.grant.devices,
            started_at=record.started_at if process else None,
            ready_at=record.ready_at if process else None,
            start_seconds=record.start_seconds,
        )

    def member(self, is_current: bool) -> Member:
        """What `assign_roles` asks of it."""
        is_ready = self.phase is ReplicaPhase.READY
        return Member(
            name=self.name,
            order=self.record.order,
            is_ready=is_ready,
            is_spare=self.record.is_spare,
            is_current=is_current,
        )

    def follow(self, workload: Workload) -> None:
        """What was applied last: the same command, maybe other labels, probes and patience."""
        self._note(workload=workload)

    def set_spare(self, is_spare: bool) -> None:
        """Whether it is kept warm or takes requests."""
        self._note(is_spare=is_spare)

    def grant(self, grant: Grant) -> None:
        """Devices for it: it may start."""
        self._note(grant=grant)
        self.is_granted = True
        self._news.set()

    def wait_for(self, reason: str, message: str) -> None:
        """Why it is still pending."""
        self.reason, self.message = reason, message

    def drain(self) -> None:
        """Let it end what it does, then end it."""
        if not self.is_draining:
            self._note(drained_at=time.monotonic())
            self._news.set()

    def kill_for(self, reason: str, message: str) -> None:
        """End its process now, which counts as a crash for this reason."""
        if self.process is not None and self._cause is None:
            self._cause = (reason, message)
            self.process.kill()

    async def live(self) -> None:
        """Until it has been drained and is gone. Cancels: leaves the process running, and the record of it."""
        while not self.is_draining:
            if self.process is not None or await self._started():
                await self._attend()
        await self._end()

    def release(self) -> None:
        """Stop watching the process, which goes on if it runs."""
        if self.process is not None:
            self.process.close()

    async def probe(self) -> Verdict:
        """One round of questions, and what the replica is after it."""
        async with self._place.probes:
            asked = await ask_round(self.record.workload, self.record.port, self.health)
        now = time.monotonic()
        if self._has_ended or self.is_draining:
            return Verdict.UNREADY
        workload = self.record.workload
        self.health = health.after(self.health, asked.answers, workload, now)
        verdict = health.verdict(self.health, workload, now)
        if verdict in _CAUSES:
            reason, sentence = _CAUSES[verdict]
            self.kill_for(
                reason,
                sentence.format(
                    silence=self.health.silent_seconds,
                    path=workload.liveness.path,
                    failures=self.health.live_failures,
                    start=workload.start_timeout_seconds,
                ),
            )
        elif verdict is Verdict.READY:
            self._ready(now, asked.start_seconds or {})
        elif verdict is Verdict.UNREADY:
            self._move(ReplicaPhase.UNREADY, "ProbeFailed", f"{workload.readiness.path} does not answer 200")
        return verdict

    async def _started(self) -> bool:
        """Start a process, once there are devices for it. False: it did not, look again."""
        if not self.is_granted:
            await self._until(lambda: self.is_granted or self.is_draining, None)
            return False
        try:
            self._note(**_fields(self._place.intent(self.record)))
            await self.save()
            self.process = self._place.start(self.record, self._news.set)
        except (OSError, BackendError) as exc:
            message = exc.message if isinstance(exc, BackendError) else f"it cannot be started: {exc}"
            await self._rest("CannotStart", message, ready_seconds=0.0)
            return False
        self._cause = None
        self._note(process=self.process.identity, started_at=self._place.clock(), ready_at=None, start_seconds={})
        self.health = health.fresh(time.monotonic())
        # Why it must start again stays said until it is ready.
        self._move(ReplicaPhase.STARTING, "", self.message if self.record.restarts else "")
        await self.save()
        return True

    async def _attend(self) -> None:
        """Ask it how it is until it ends or shall go; then wait as long as its kind of end asks for."""
        async with asyncio.TaskGroup() as group:
            probing = group.create_task(self._keep_probing())
            await self._until(lambda: self._has_ended or self.is_draining, None)
            probing.cancel()
        if self.process is not None and self._has_ended and not self.is_draining:
            await self._crashed(self.process)

    async def _keep_probing(self) -> None:
        while True:
            await self.probe()
            await self._save_quietly()
            await asyncio.sleep(health.pause_seconds(self.health, self.record.workload))

    def _ready(self, now: float, parts: dict[str, float]) -> None:
        if self.record.ready_at is None:
            took = {**parts, "ready": round(now - self.health.started_at, 3)}
            self._note(ready_at=self._place.clock(), start_seconds=took)
        self._move(ReplicaPhase.READY, "", "")

    async def _crashed(self, process: Process) -> None:
        """Its process has ended unasked."""
        await self._group_gone(process)
        self.process = None
        self._note(process=None, last_exit_code=process.exit_code)
        has_been_ready = self.health.has_been_ready
        may_be_the_port = not has_been_ready and self._cause is None and self._port_clashes < _MAX_PORT_CLASHES
        if may_be_the_port and is_taken(self.record.port):
            self._port_clashes += 1
            logger.info("port is taken", extra={"replica": self.name, "port": self.record.port})
            return
        self._note(restarts=self.record.restarts + 1)
        reason, message = self._cause or ("Crashed", _ending(process.exit_code))
        ready_seconds = time.monotonic() - self.health.started_at if has_been_ready else 0.0
        if self._cause is None and (process.exit_code or 0) > 0:
            message += await asyncio.to_thread(self._last_words)
        await self._rest(reason, message, ready_seconds)

    def _last_words(self) -> str:
        """The last line it wrote, as part of a sentence. Not of one ended by a signal: that says it all."""
        last = next((line.strip() for line in reversed(self._place.tail(self.record)) if line.strip()), "")
        return f"; its last words: {last[:_LAST_WORDS_CHARS]}" if last else ""

    async def _rest(self, reason: str, message: str, ready_seconds: float) -> None:
        """Count one more crash in a row and wait before the next start."""
        policy = self._place.settings.restarts
        crashes = crashes_after(policy, self.record.crashes, ready_seconds)
        self._note(crashes=crashes)
        seconds = restart_delay_seconds(policy, crashes, random.random())
        if is_crash_loop(policy, crashes):
            message = f"it failed {crashes} times in a row ({reason}), next try in {seconds:.0f} s: {message}"
            reason = "CrashLoop"
        logger.warning("replica failed", extra={"replica": self.name, "reason": reason, "detail": message})
        self._move(ReplicaPhase.BACKOFF, reason, message)
        await self._save_quietly()
        await self._until(lambda: self.is_draining, seconds)

    async def _end(self) -> None:
        """Ask the process to end; after its grace period, end it."""
        process = self.process
        if process is None or process.has_exited:
            return
        is_routed = self.phase is ReplicaPhase.READY and not self.record.is_spare
        self._move(ReplicaPhase.DRAINING, "", "")
        if self.record.told_at is None:
            await self._save_quietly()
            await self._until(lambda: process.has_exited, self._place.settings.farewell_seconds if is_routed else 0.0)
            self._note(told_at=time.monotonic())
            # Remembered first: a second SIGTERM, sent by our successor, would cut the open requests off.
            await self._save_quietly()
            process.terminate()
        grace = (self.record.told_at or 0.0) + self.record.workload.shutdown_grace_seconds - time.monotonic()
        if not await self._until(lambda: process.has_exited, max(0.0, grace)):
            logger.warning("grace period over", extra={"replica": self.name})
            process.kill()
            await self._until(lambda: process.has_exited, None)
        await self._group_gone(process)

    async def _group_gone(self, process: Process) -> None:
        """Its children were killed with it; their memory and devices are free a moment later."""
        for _ in range(_GROUP_POLLS):
            if not await asyncio.to_thread(process.members):
                return
            await asyncio.sleep(_GROUP_POLL_SECONDS)

    async def _until(self, is_so: Callable[[], bool], seconds: float | None) -> bool:
        """Wait until `is_so`, asked after each piece of news; whether it is, after so many seconds (None = any)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not is_so():
                    await self._news.wait()
                    self._news.clear()
        return is_so()

    async def save(self) -> None:
        """Write down what was not yet written. Raises: BackendError."""
        if self.record != self._saved:
            record = self.record
            await self._place.save(record)
            self._saved = record

    async def _save_quietly(self) -> None:
        """A process that runs is not ended because a disk is full; it is tried again with the next round."""
        try:
            await self.save()
        except BackendError as exc:
            logger.warning("record cannot be written", extra={"replica": self.name, "error": exc.message})

    def _note(self, **changes: Any) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)

    def _move(self, phase: ReplicaPhase, reason: str, message: str) -> None:
        if (self.phase, self.reason, self.message) == (phase, reason, message):
            return
        is_new = self.phase is not phase
        self.phase, self.reason, self.message = phase, reason, message
        if is_new:
            logger.info("replica is " + phase.value, extra={"replica": self.name, "reason": reason})
        self._place.moved(self)


def _fields(record: ReplicaRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "its process ended"
    if exit_code < 0:
        return f"its process was ended by signal {-exit_code}"
    return f"its process ended with exit code {exit_code}"
