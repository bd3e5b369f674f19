"""Who runs and who waits, as values: no clock, no loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.serving.admission_policy import (
    AdmissionLimits,
    AdmissionQueue,
    ServiceRate,
    Ticket,
    retry_after_seconds,
)


def ticket(principal: str = "a", *, sequences: int = 1, tokens: int = 10, priority: int = 0) -> Ticket:
    return Ticket(principal=principal, sequences=sequences, tokens=tokens, priority=priority)


def queue(**limits: int) -> AdmissionQueue:
    return AdmissionQueue(AdmissionLimits(**{"max_running": 2, **limits}))


def test_runs_at_once_while_there_is_room_then_waits() -> None:
    door = queue()
    verdicts = [door.offer(ticket()) for _ in range(3)]
    assert [verdict.admitted for verdict in verdicts] == [True, True, False]
    assert verdicts[2].waiting
    assert (door.running, door.waiting, door.waiting_tokens) == (2, 1, 10)


def test_nobody_overtakes_the_queue_even_if_it_would_fit() -> None:
    door = queue()
    first = ticket()
    door.offer(first)
    wide = ticket(sequences=2)
    assert door.offer(wide).waiting
    assert door.offer(ticket()).waiting
    door.release(first)
    assert list(door.admit_next()) == [wide]


def test_a_request_wider_than_the_engine_runs_alone() -> None:
    door = queue()
    assert door.offer(ticket(sequences=5)).admitted
    assert door.offer(ticket()).waiting


@pytest.mark.parametrize(
    ("limits", "offered", "reason"),
    [
        ({"max_waiting": 1}, ticket(), "1 requests are waiting already (max_waiting 1)"),
        ({"max_waiting": 0}, ticket(), "0 requests are waiting already (max_waiting 0)"),
        ({"max_waiting_tokens": 15}, ticket(tokens=10), "the queue holds 10 tokens already"),
    ],
)
def test_f07_a_full_queue_refuses_and_says_why(limits: dict[str, int], offered: Ticket, reason: str) -> None:
    door = queue(max_running=1, **limits)
    door.offer(ticket())
    if limits.get("max_waiting") != 0:
        assert door.offer(ticket()).waiting
    verdict = door.offer(offered)
    assert not verdict.admitted
    assert not verdict.waiting
    assert verdict.reason.startswith(reason)


def test_one_giant_request_may_wait_alone_however_many_tokens_it_has() -> None:
    door = queue(max_running=1, max_waiting_tokens=5)
    door.offer(ticket())
    assert door.offer(ticket(tokens=1000)).waiting


def test_two_principals_share_turns_whatever_their_numbers() -> None:
    door = queue(max_running=1)
    running = ticket("greedy")
    door.offer(running)
    many = [ticket("greedy") for _ in range(6)]
    few = [ticket("modest") for _ in range(2)]
    for each in (*many, *few):
        door.offer(each)
    order = []
    for _ in range(8):
        door.release(running)
        running = next(iter(door.admit_next()))
        order.append(running.principal)
    assert order[:4].count("modest") == 2


def test_fairness_counts_tokens_not_requests() -> None:
    door = queue(max_running=1)
    running = ticket("long", tokens=100)
    door.offer(running)
    for _ in range(2):
        door.offer(ticket("long", tokens=100))
    for _ in range(9):
        door.offer(ticket("short", tokens=10))
    order = []
    for _ in range(11):
        door.release(running)
        running = next(iter(door.admit_next()))
        order.append(running.principal)
    assert order.index("long") >= 5


def test_priority_orders_one_principals_own_requests_only() -> None:
    door = queue(max_running=1)
    running = ticket("a")
    door.offer(running)
    late_but_urgent = ticket("a", priority=-5)
    for each in (ticket("a"), late_but_urgent, ticket("b")):
        door.offer(each)
    door.release(running)
    first = next(iter(door.admit_next()))
    assert first.principal == "b"
    door.release(first)
    assert next(iter(door.admit_next())) is late_but_urgent


def test_a_full_queue_makes_the_greediest_give_way_to_a_newcomer() -> None:
    door = queue(max_running=1, max_waiting=3)
    door.offer(ticket("greedy"))
    waiting = [ticket("greedy") for _ in range(3)]
    for each in waiting:
        door.offer(each)
    verdict = door.offer(ticket("modest"))
    assert verdict.waiting
    assert verdict.evicted is waiting[-1]
    assert door.waiting == 3
    assert not door.offer(ticket("greedy")).waiting


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.integers(1, 50), st.booleans()), max_size=60))
def test_counts_never_lie(steps: list[tuple[str, int, int, bool]]) -> None:
    door = queue(max_running=4, max_waiting=5, max_waiting_tokens=120)
    running: list[Ticket] = []
    waiting: list[Ticket] = []
    for principal, sequences, tokens, ends_one in steps:
        offered = ticket(principal, sequences=sequences, tokens=tokens)
        verdict = door.offer(offered)
        if verdict.evicted is not None:
            waiting.remove(verdict.evicted)
        if verdict.admitted:
            running.append(offered)
        elif verdict.waiting:
            waiting.append(offered)
        if ends_one and running:
            door.release(running.pop(0))
            for admitted in door.admit_next():
                waiting.remove(admitted)
                running.append(admitted)
        assert door.running == sum(each.sequences for each in running)
        assert door.waiting == len(waiting) <= 5
        assert door.waiting_tokens == sum(each.tokens for each in waiting)
        assert len(running) == 1 or door.running <= 4
        assert running or not waiting


def test_f07_retry_after_follows_the_measured_rate() -> None:
    rate = ServiceRate()
    assert rate.per_second() is None
    for step in range(11):
        rate.finished(100.0 + step * 0.5)
    assert rate.per_second() == pytest.approx(2.0)
    assert retry_after_seconds(waiting=38, rate=rate.per_second()) == 10.0


@pytest.mark.parametrize(("waiting", "rate", "seconds"), [(0, None, 1), (0, 100.0, 1), (1000, 0.1, 60)])
def test_retry_after_is_between_one_second_and_a_minute(waiting: int, rate: float | None, seconds: int) -> None:
    assert retry_after_seconds(waiting, rate) == seconds


def test_f11_a_clock_that_stands_or_steps_back_gives_no_rate_and_no_crash() -> None:
    rate = ServiceRate()
    for now in (10.0, 10.0, 9.0):
        rate.finished(now)
    assert rate.per_second() is None
