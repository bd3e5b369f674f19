"""The sending of load on a virtual clock: times are exact, minutes take milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from argosy.evals.metrics import summarise
from argosy.evals.planning import PlannedRequest
from argosy.evals.records import RequestRecord
from argosy.evals.sending import Sending, run_load

Run = Callable[[Any], Any]


def plan(*times: float | None) -> Iterator[PlannedRequest]:
    return (PlannedRequest(index=n, at_seconds=at, prompt_tokens=1, max_tokens=1) for n, at in enumerate(times))


class OneAtATime:
    """A server that answers one request at a time, each in `seconds`, with one token."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self.running = self.most_running = 0

    async def ask(self, planned: PlannedRequest, record: RequestRecord) -> None:
        loop = asyncio.get_running_loop()
        record.sent_at = loop.time()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            async with self._lock:
                await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            record.error, record.ended_at = "interrupted", loop.time()
            raise
        finally:
            self.running -= 1
        record.ended_at = loop.time()
        record.chunk_times.append(record.ended_at)
        record.completion_tokens = 1


async def send(
    plan: Iterator[PlannedRequest],
    server: OneAtATime,
    *,
    concurrency: int | None,
    duration: float | None = None,
    interrupt_after: float | None = None,
) -> Sending:
    loop = asyncio.get_running_loop()
    sending = Sending(loop.time, duration)
    interrupted = asyncio.Event()
    timer = loop.call_later(interrupt_after, interrupted.set) if interrupt_after is not None else None
    await run_load(plan, server.ask, sending, concurrency=concurrency, interrupted=interrupted)
    if timer:
        timer.cancel()
    return sending


def test_an_open_loop_counts_waiting_that_a_closed_loop_hides(run_virtually: Run) -> None:
    """Coordinated omission: the same slow server, asked once a second but needing two."""
    opened = run_virtually(send(plan(0, 1, 2, 3), OneAtATime(2.0), concurrency=None))
    closed = run_virtually(send(plan(None, None, None, None), OneAtATime(2.0), concurrency=1))
    assert [record.ttft_seconds for record in opened.records] == pytest.approx([2, 3, 4, 5])
    assert [record.ttft_seconds for record in closed.records] == pytest.approx([2, 2, 2, 2])


def test_an_open_loop_sends_on_time_whatever_the_server_does(run_virtually: Run) -> None:
    server = OneAtATime(10.0)
    sending = run_virtually(send(plan(0.5, 1.5, 1.5, 7), server, concurrency=None))
    assert [record.sent_at for record in sending.records] == pytest.approx([0.5, 1.5, 1.5, 7])
    assert server.most_running == 4


def test_a_late_sender_is_charged_from_the_intended_time(run_virtually: Run) -> None:
    async def late() -> Sending:
        loop = asyncio.get_running_loop()
        sending = Sending(loop.time, None)
        await asyncio.sleep(5)  # the client was busy until 5: both requests go out late
        await run_load(plan(1, 2), OneAtATime(0.0).ask, sending, concurrency=None, interrupted=asyncio.Event())
        return sending

    records = run_virtually(late()).records
    assert [record.ttft_seconds for record in records] == pytest.approx([4, 3])
    assert [record.sent_at - record.intended_at for record in records] == pytest.approx([4, 3])


def test_a_closed_loop_keeps_exactly_its_clients_busy(run_virtually: Run) -> None:
    server = OneAtATime(1.0)
    sending = run_virtually(send(plan(*[None] * 10), server, concurrency=3))
    assert (server.most_running, len(sending.records)) == (3, 10)
    assert sending.window().seconds == pytest.approx(10)


def test_the_deadline_stops_sending_and_open_requests_end(run_virtually: Run) -> None:
    sending = run_virtually(send(plan(*[None] * 100), OneAtATime(1.0), concurrency=2, duration=4.5))
    assert all(record.error is None for record in sending.records)
    assert max(record.ended_at for record in sending.records) == pytest.approx(6)
    assert sending.window().end == pytest.approx(4.5)
    summary = summarise("x", sending.records, sending.window())
    assert summary.request_rate == pytest.approx(4 / 4.5), "what ended after the window is not throughput"


def test_the_deadline_of_an_open_loop_falls_between_two_requests(run_virtually: Run) -> None:
    sending = run_virtually(send(plan(1, 2, 3, 50), OneAtATime(0.5), concurrency=None, duration=10))
    assert len(sending.records) == 3
    assert sending.window().end == pytest.approx(10)


@pytest.mark.parametrize("concurrency", [2, None])
def test_an_interrupt_cuts_open_requests_and_keeps_the_rest(run_virtually: Run, concurrency: int | None) -> None:
    times = [None] * 100 if concurrency else [float(n) for n in range(100)]
    sending = run_virtually(send(plan(*times), OneAtATime(1.5), concurrency=concurrency, interrupt_after=5.0))
    errors = [record.error for record in sending.records]
    assert errors.count(None) == 3
    assert set(errors) == {None, "interrupted"}
    assert max(record.ended_at for record in sending.records) == pytest.approx(5)
