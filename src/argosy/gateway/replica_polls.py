"""Asks every replica, several times a second, how it is: load, prefix cache, phase. That is also how one is found dead.

A replica that refuses the connection is out at once, and back as soon as it answers; one that says nothing for
`SILENCE_SECONDS` counts as hanging (stopped, or behind a black hole): it is out, and requests that wait for its first
byte are sent elsewhere (F-04, F-08). These are facts; what requests themselves show is judged in `outlier.py`.

A replica that answers, but nothing we understand, is routed to by what the gateway knows itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import msgspec

from argosy.core.load_report import REPLICA_REPORT_PATH, ReplicaReport
from argosy.gateway.endpoints import EndpointState
from argosy.gateway.services import Services, ServiceState
from argosy.gateway.transport import FailureKind, Question, ReplicaFailure, Transport

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # Longest time for one answer.
SILENCE_SECONDS = 3.0
_MAX_REPORT_BYTES = 8 * 2**20

_decoder = msgspec.json.Decoder(ReplicaReport)


class ReplicaPolls:
    """One loop per replica of the table. interval_seconds: between the end of an answer and the next question."""

    def __init__(
        self, services: Services, transport: Transport, clock: Callable[[], float], interval_seconds: float
    ) -> None:
        self._services = services
        self._transport = transport
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._changed = asyncio.Event()

    def follow(self) -> None:
        """The table changed: ask the replicas that are there now."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled. Cancels: asks nobody any more."""
        loops: dict[EndpointState, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                wanted = {state: service for service in self._services for state in service.endpoints.values()}
                for state in [*loops]:
                    if state not in wanted:
                        loops.pop(state).cancel()
                for state, service in wanted.items():
                    if state not in loops:
                        loops[state] = group.create_task(self._follow_one(service, state))
                await self._changed.wait()

    async def _follow_one(self, service: ServiceState, state: EndpointState) -> None:
        while True:
            await self.ask(service, state)
            await asyncio.sleep(self._interval_seconds)

    async def ask(self, service: ServiceState, state: EndpointState) -> None:
        """One question to one replica, and what follows from its answer. Cancels: nothing was learnt."""
        began = self._clock()
        if state.heard_at is None:
            state.heard_at = began
        since = service.prefixes.since(state.endpoint.replica)
        question = Question(method=b"GET", path=f"{REPLICA_REPORT_PATH}?since={since}".encode())
        try:
            async with asyncio.timeout(POLL_SECONDS):
                body = await _answer_to(self._transport, state.endpoint.address, question)
        except ReplicaFailure as failure:
            self._failed(state, failure)
        except TimeoutError:
            self._silent(state)
        else:
            self._heard(service, state, body)

    def _heard(self, service: ServiceState, state: EndpointState, body: bytes | None) -> None:
        report: ReplicaReport | None = None
        if body is not None:
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                report = _decoder.decode(body)
        was_usable, now = state.is_usable(self._clock()), self._clock()
        is_restarted = report is not None and state.report is not None and report.epoch != state.report.epoch
        state.heard(report, now)
        if report is not None and state.endpoint.replica in service.endpoints:
            if is_restarted:
                service.prefixes.forget(state.endpoint.replica)
            service.prefixes.apply(state.endpoint.replica, report.prefix)
        if not was_usable:
            service.admit(now)

    def _failed(self, state: EndpointState, failure: ReplicaFailure) -> None:
        if failure.kind is FailureKind.CONNECT:
            self._lose(state, failure.message)
        else:
            self._silent(state)

    def _silent(self, state: EndpointState) -> None:
        heard_at = state.heard_at or 0.0
        if self._clock() - heard_at >= SILENCE_SECONDS:
            self._lose(state, f"{state.endpoint.replica} has not answered for {SILENCE_SECONDS:g} s")
            self._transport.give_up(state.endpoint.address, "the replica does not answer any more")

    def _lose(self, state: EndpointState, reason: str) -> None:
        if state.is_reachable:
            logger.warning("replica lost", extra={"replica": state.endpoint.replica, "reason": reason})
        state.is_reachable = False


async def _answer_to(transport: Transport, address: str, question: Question) -> bytes | None:
    """The body of a good answer, None for any other. Raises: ReplicaFailure."""
    answer = await transport.ask(address, question)
    try:
        body = b""
        while piece := await answer.read():
            body += piece
            if len(body) > _MAX_REPORT_BYTES:
                return None
    finally:
        answer.close()
    return body if answer.status == 200 else None
