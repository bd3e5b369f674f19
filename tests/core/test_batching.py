"""Batches close in time, and tuning never loses to batch size 1: closed loops of clients on a virtual clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.core.batching import BatchPlan, BatchTuner, closes_in

CallSeconds = Callable[[int], float]


class Untuned:
    """Batch size 1, whatever comes."""

    def plan(self, num_waiting: int, num_in_flight: int, num_idle: int = 0) -> BatchPlan:
        return BatchPlan(batch_size=1)

    def held(self, seconds: float, num_before: int, num_after: int) -> None:
        """Nothing is learned."""

    def finished(self, size: int, seconds: float, num_in_flight: int) -> None:
        """Nothing is learned."""


def throughput(
    planner: BatchTuner | Untuned,
    call_seconds: CallSeconds,
    num_clients: Callable[[float], int],
    horizon_seconds: float,
    *,
    think_seconds: Callable[[], float] = lambda: 0.0,
    num_workers: int = 1,
) -> float:
    """Requests per second of clients that each send the next request once the last is answered.

    Events on a heap: (time, order, kind): a request arrives, a held batch's time is over, a call ends.
    """
    order = 0
    events: list[tuple[float, int, str, int]] = []
    waiting = running = done = clients = 0
    idle = num_workers
    holder: tuple[float, int, BatchPlan] | None = None
    now = 0.0

    def schedule(at: float, kind: str, size: int = 0) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (at, order, kind, size))

    def admit_clients() -> None:
        nonlocal clients
        while clients < num_clients(now):
            clients += 1
            schedule(now + think_seconds(), "arrive")

    def begin(size: int) -> None:
        nonlocal waiting, running, idle
        waiting -= size
        running += size
        idle -= 1
        schedule(now + call_seconds(size), f"end {now!r}", size)

    def look() -> None:
        nonlocal holder
        while waiting and idle:
            if holder is None:
                plan = planner.plan(waiting, waiting + running, idle - 1)
                holder = (now, waiting, plan)
                if (wait := closes_in(plan, waiting, 0.0)) > 0.0:
                    schedule(now + wait, "hold")
                    return
            began, num_before, plan = holder
            if closes_in(plan, waiting, now - began) > 1e-12:
                return
            if now > began:
                planner.held(now - began, num_before, waiting)
            holder = None
            begin(min(waiting, plan.batch_size))

    admit_clients()
    while events and now < horizon_seconds:
        now, _, kind, size = heapq.heappop(events)
        if kind == "arrive":
            waiting += 1
        elif kind.startswith("end"):
            planner.finished(size, now - float(kind[4:]), waiting + running)
            running -= size
            idle += 1
            done += size
            for _ in range(size):
                if clients > num_clients(now):
                    clients -= 1
                else:
                    schedule(now + think_seconds(), "arrive")
        admit_clients()
        look()
    return done / now


def gain(call_seconds: CallSeconds, clients: int, batch_size: int, horizon: float, **more: object) -> float:
    """Throughput with tuning over that of batch size 1."""
    tuned = throughput(BatchTuner(batch_size, 0.1), call_seconds, lambda now: clients, horizon, **more)  # type: ignore[arg-type]
    return tuned / throughput(Untuned(), call_seconds, lambda now: clients, horizon, **more)  # type: ignore[arg-type]


@given(st.integers(1, 64), st.integers(0, 64), st.floats(0.0, 10.0), st.floats(0.0, 20.0), st.integers(0, 64))
def test_a_batch_is_never_held_when_full_nor_longer_than_its_delay(
    size: int, waiting: int, delay: float, held: float, wait_for: int
) -> None:
    plan = BatchPlan(batch_size=size, delay_seconds=delay, wait_for=wait_for)
    rest = closes_in(plan, waiting, held)
    assert 0.0 <= rest <= delay
    if waiting >= size and wait_for <= size:
        assert rest == 0.0
    if held >= delay:
        assert rest == 0.0


@pytest.mark.parametrize("clients", [1, 3, 8, 64])
@pytest.mark.parametrize(
    "call_seconds",
    [
        pytest.param(lambda size: 0.010 * size, id="no gain"),
        pytest.param(lambda size: 0.010 * size * 1.3, id="worse from the first"),
        pytest.param(lambda size: 0.010 * size * (1.3 if size > 1 else 1.0), id="a third slower, as MNIST"),
        pytest.param(lambda size: 0.010 * size**1.7, id="far worse"),
        pytest.param(lambda size: 0.010 * size * (0.99 if size == 2 else 1.5 if size > 2 else 1.0), id="bait"),
        pytest.param(lambda size: 0.010 * size * (0.8 if size == 2 else 3.0 if size > 2 else 1.0), id="trap"),
    ],
)
def test_where_batching_does_not_pay_tuning_costs_less_than_a_fiftieth(call_seconds: CallSeconds, clients: int) -> None:
    assert gain(call_seconds, clients, 8, 60.0) >= 0.98


@pytest.mark.parametrize(("clients", "least"), [(8, 3.0), (16, 3.4), (64, 3.6)])
def test_where_batching_pays_tuning_gets_the_gain(clients: int, least: float) -> None:
    """Eight requests take as long as two: the ideal gain is four."""
    assert gain(lambda size: 0.010 * (1.0 + (size - 1) / 7), clients, 8, 60.0) >= least


def test_a_call_that_costs_the_same_for_any_size_is_filled() -> None:
    assert gain(lambda size: 0.020, 32, 32, 60.0) >= 20.0


@pytest.mark.parametrize("clients", [1, 2, 8])
def test_clients_that_pause_are_not_held_in_vain(clients: int) -> None:
    chance = random.Random(3)
    ratio = gain(lambda size: 0.010 + 0.002 * size, clients, 8, 60.0, think_seconds=lambda: chance.expovariate(100.0))
    assert ratio >= 0.98


def test_when_the_crowd_leaves_the_last_client_is_not_held_back() -> None:
    def crowd(now: float) -> int:
        return 32 if now < 20.0 else 1

    call: CallSeconds = lambda size: 0.010 + 0.001 * size  # noqa: E731
    planner, single = BatchTuner(16, 0.1), Untuned()
    throughput(planner, call, crowd, 20.0)
    lonely = throughput(planner, call, lambda now: 1, 20.0)
    assert lonely / throughput(single, call, lambda now: 1, 20.0) >= 0.98


def test_noise_does_not_mislead_for_long() -> None:
    chance = random.Random(7)

    def noisy(size: int) -> float:
        return sum(chance.expovariate(1.0 / 0.010) for _ in range(size)) * (1.3 if size > 1 else 1.0)

    assert gain(noisy, 16, 8, 300.0) >= 0.97  # two runs of noise differ by a hundredth themselves


def test_a_model_that_changes_is_learned_again() -> None:
    """Batching pays for ten minutes, then it does not: the account keeps what was won, and then stops."""
    planner = BatchTuner(8, 0.1)
    pays: CallSeconds = lambda size: 0.010 + 0.001 * size  # noqa: E731
    costs: CallSeconds = lambda size: 0.011 * size * (1.3 if size > 1 else 1.0)  # noqa: E731
    throughput(planner, pays, lambda now: 16, 60.0)
    assert planner.batch_size == 8
    after = throughput(planner, costs, lambda now: 16, 120.0)
    assert after / throughput(Untuned(), costs, lambda now: 16, 120.0) >= 0.98
    assert planner.batch_size == 1
    assert throughput(planner, pays, lambda now: 16, 120.0) >= 300.0


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(0.5, 3.0), min_size=6, max_size=6),
    st.integers(1, 40),
    st.integers(2, 32),
    st.integers(1, 4),
)
def test_whatever_the_model_is_like_tuning_does_not_lose(
    ratios: list[float], clients: int, batch_size: int, workers: int
) -> None:
    """ratios: cost per request of sizes up to 2, 4, 8, … in terms of a single one's."""

    def call_seconds(size: int) -> float:
        return 0.010 * size * (1.0 if size == 1 else ratios[(size - 1).bit_length()])

    assert gain(call_seconds, clients, batch_size, 20.0, num_workers=workers) >= 0.98
