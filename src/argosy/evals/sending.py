"""Sending planned requests on a clock and collecting their records: closed loop or open loop.

Knows neither HTTP nor the wall clock, so tests run it on a virtual one. In a closed loop a request is intended when
its client becomes free; in an open loop when the plan says, however late it really goes out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from argosy.evals.metrics import Window
from argosy.evals.planning import PlannedRequest
from argosy.evals.records import RequestRecord

Ask = Callable[[PlannedRequest, RequestRecord], Awaitable[object]]


class Sending:
    """The state of one load while it runs; `records` grows as requests are sent."""

    def __init__(self, clock: Callable[[], float], duration_seconds: float | None) -> None:
        self.clock = clock
        self.started_at = clock()
        self.deadline = float("inf") if duration_seconds is None else self.started_at + duration_seconds
        self.records: list[RequestRecord] = []
        self.hit_deadline = False

    def window(self) -> Window:
        """From the start to the deadline if that stopped the sending, else to the last end."""
        ended = max((record.ended_at for record in self.records), default=self.clock())
        return Window(start=self.started_at, end=self.deadline if self.hit_deadline else ended)


async def run_load(
    plan: Iterator[PlannedRequest],
    ask: Ask,
    sending: Sending,
    *,
    concurrency: int | None,
    interrupted: asyncio.Event,
) -> None:
    """Send the plan and fill `sending`; returns when every answer has ended.

    concurrency: that many clients in a closed loop; None = each request at its own time.
    `interrupted` set: nothing more is sent, open requests are cut and marked so. Cancels: the same.
    """
    async with asyncio.TaskGroup() as workers:
        tasks: set[asyncio.Task[None]] = set()
        watcher = workers.create_task(_cut_when(interrupted, tasks))
        async with asyncio.TaskGroup() as senders:
            if concurrency is None:
                tasks.add(senders.create_task(_send_on_time(plan, ask, sending, tasks, senders)))
            else:
                for _ in range(concurrency):
                    tasks.add(senders.create_task(_send_in_turn(plan, ask, sending)))
        watcher.cancel()


async def _cut_when(interrupted: asyncio.Event, tasks: set[asyncio.Task[None]]) -> None:
    await interrupted.wait()
    for task in list(tasks):
        task.cancel()


async def _send_in_turn(plan: Iterator[PlannedRequest], ask: Ask, sending: Sending) -> None:
    for planned in plan:
        now = sending.clock()
        if now >= sending.deadline:
            sending.hit_deadline = True
            return
        await _send(planned, ask, sending, intended_at=now)


async def _send_on_time(
    plan: Iterator[PlannedRequest],
    ask: Ask,
    sending: Sending,
    tasks: set[asyncio.Task[None]],
    senders: asyncio.TaskGroup,
) -> None:
    for planned in plan:
        intended_at = sending.started_at + (planned.at_seconds or 0.0)
        is_over = intended_at >= sending.deadline
        if (wait := min(intended_at, sending.deadline) - sending.clock()) > 0:
            await asyncio.sleep(wait)
        if is_over:
            sending.hit_deadline = True
            return
        task = senders.create_task(_send(planned, ask, sending, intended_at=intended_at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _send(planned: PlannedRequest, ask: Ask, sending: Sending, *, intended_at: float) -> None:
    record = RequestRecord(index=planned.index, intended_at=intended_at, sent_at=sending.clock(), chunk_times=[])
    sending.records.append(record)
    await ask(planned, record)
