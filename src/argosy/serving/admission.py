"""Permits to run: the effects around `admission_policy` (a clock, futures, metrics), kept dull.

A permit is taken when a `Generation` is entered and given back when it is left, whatever happens in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from argosy.core.errors import ArgosyError, DeadlineExceeded, Overloaded
from argosy.serving.admission_policy import (
    AdmissionLimits,
    AdmissionQueue,
    ServiceRate,
    Ticket,
    retry_after_seconds,
)

Clock = Callable[[], float]


class Admission:
    """The door of one served model."""

    def __init__(self, limits: AdmissionLimits, clock: Clock, on_refused: Callable[[str], None]) -> None:
        self._queue = AdmissionQueue(limits)
        self._limits = limits
        self._clock = clock
        self._on_refused = on_refused
        self._rate = ServiceRate()
        # A waiter stands here until it is decided: granted a permit, evicted, or gone. One that was cancelled in this
        # turn of the loop is still here, or granted, until its task has run: its future is done, its place is not.
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        self._granted: set[Ticket] = set()

    @property
    def running(self) -> int:
        """Sequences that hold a permit."""
        return self._queue.running

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return self._queue.waiting

    async def acquire(self, ticket: Ticket, deadline: float | None) -> None:
        """Return once the ticket may run; give it back with `release`.

        Units: deadline in seconds of the clock, None = only the queue's own limit.
        Cancels: the ticket leaves the queue; a permit granted in the same moment is given back.
        Raises: Overloaded at once if the queue is full, or after max_queue_seconds; DeadlineExceeded.
        """
        verdict = self._queue.offer(ticket)
        if verdict.admitted:
            return
        if verdict.evicted is not None:
            self._evict(verdict.evicted, f"{verdict.reason}, and other clients hold fewer")
        if not verdict.waiting:
            raise self._refusal("queue_full", verdict.reason)
        await self._wait(ticket, deadline)

    def release(self, ticket: Ticket) -> None:
        """Give the permit back and wake whoever may run now. Never blocks."""
        self._queue.release(ticket)
        self._rate.finished(self._clock())
        self._wake()

    def refuse_waiting(self, error: ArgosyError) -> None:
        """Tell everyone who waits that they wait in vain."""
        for ticket in [ticket for ticket, waiter in self._waiters.items() if not waiter.done()]:
            self._queue.leave(ticket)
            self._waiters.pop(ticket).set_exception(error)

    async def _wait(self, ticket: Ticket, deadline: float | None) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[ticket] = waiter
        patience = self._limits.max_queue_seconds
        remaining = patience if deadline is None else min(patience, deadline - self._clock())
        try:
            async with asyncio.timeout(max(remaining, 0.0)):
                await waiter
        except TimeoutError:
            self._give_up(ticket, waiter)
            raise self._timeout(remaining, is_deadline=remaining < patience) from None
        except asyncio.CancelledError:
            self._give_up(ticket, waiter)
            raise
        finally:
            self._waiters.pop(ticket, None)
            self._granted.discard(ticket)

    def _give_up(self, ticket: Ticket, waiter: asyncio.Future[None]) -> None:
        """Leave the queue, or give back a permit that arrived in the same loop turn as the cancellation."""
        if ticket in self._granted:
            self._queue.release(ticket)
            self._wake()
        elif ticket in self._waiters:
            self._queue.leave(ticket)
            self._wake()
        elif not waiter.cancelled():
            waiter.exception()  # evicted in the same turn: seen, and no longer of interest

    def _wake(self) -> None:
        for ticket in self._queue.admit_next():
            waiter = self._waiters.pop(ticket)
            self._granted.add(ticket)
            if not waiter.done():
                waiter.set_result(None)

    def _evict(self, ticket: Ticket, detail: str) -> None:
        waiter = self._waiters.pop(ticket)
        if not waiter.done():
            waiter.set_exception(self._refusal("queue_full", detail))

    def _timeout(self, waited_seconds: float, *, is_deadline: bool) -> Overloaded | DeadlineExceeded:
        if is_deadline:
            self._on_refused("deadline")
            return DeadlineExceeded(
                f"the request waited {max(waited_seconds, 0.0):.1f} s for a free slot and its deadline has passed: "
                "send it later, or with a longer deadline"
            )
        return self._refusal("queue_timeout", f"no slot became free within {waited_seconds:.0f} s")

    def _refusal(self, reason: str, detail: str) -> Overloaded:
        self._on_refused(reason)
        seconds = retry_after_seconds(self._queue.waiting, self._rate.per_second())
        return Overloaded(f"the server is busy: {detail}; try again in {seconds:.0f} s", retry_after_seconds=seconds)
