"""The clairvoyant oracle: a timetable of replicas made by somebody who knows every request in advance.

The least replica-seconds of all timetables that reach a given attainment cannot be found exactly: there are too many
of them. What is done instead, and what the word means here:

1. The traffic is simulated with 1, 2, 3, … replicas that never change, and the misses are counted by the time slot in
   which the request arrived.
2. For a price λ per miss, the timetable with the least replica-seconds + λ × misses (+ what starting replicas costs)
   is found exactly, by dynamic programming over the slots.
3. That timetable is simulated in full, starts beginning early enough to be ready when their slot begins. λ is halved
   in on until the attainment just holds.

This is done for several lengths of slots; the cheapest timetable that was simulated and holds is the oracle. No policy
that must forecast can know a burst before it comes, so the oracle is a mark to come near, not one to reach.
Source: Lagrangian relaxation of a budgeted allocation (Everett 1963).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from argosy.core.scaling import Slo
from argosy.simulator.requests import SimulatedRequest, is_good
from argosy.simulator.scalers import ScheduleScaler
from argosy.simulator.simulation import Scaler, SimulationRun

SLOT_SECONDS = (10.0, 30.0)
_TICK_SECONDS = 0.2
_DRAIN_SECONDS = 2.0
_HALVINGS = 7

Simulate = Callable[[Scaler, int], SimulationRun]
"""Simulates the traffic with a scaler, from so many ready replicas on."""


class Timetable(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas per slot, and the run that showed what they achieve."""

    slot_seconds: float
    replicas: tuple[int, ...]
    run: SimulationRun


def attainment(requests: Sequence[SimulatedRequest], slo: Slo) -> float:
    """Share of all requests that were answered within the SLO."""
    return sum(is_good(request, slo) for request in requests) / len(requests) if requests else 1.0


def misses_by_slot(requests: Sequence[SimulatedRequest], slo: Slo, slot_seconds: float, slots: int) -> list[int]:
    """Of the requests that arrived in each slot, how many were not good."""
    found = [0] * slots
    for request in requests:
        if not is_good(request, slo):
            found[min(int(request.at_seconds / slot_seconds), slots - 1)] += 1
    return found


def cheapest(misses: Sequence[Sequence[int]], price: float, slot_seconds: float, change_seconds: float) -> list[int]:
    """Replicas per slot (from 1) with the least replica-seconds + price × misses + change_seconds per replica added.

    misses: for each count of replicas, from one on, by slot. Exact, by dynamic programming.
    """
    slots, counts = len(misses[0]), len(misses)
    cost = [slot_seconds * (n + 1) + price * misses[n][0] for n in range(counts)]
    came_from: list[list[int]] = []
    for slot in range(1, slots):
        from_above = list(range(counts))  # the best predecessor with at least as many replicas: going down is free
        for n in range(counts - 2, -1, -1):
            if cost[from_above[n + 1]] < cost[n]:
                from_above[n] = from_above[n + 1]
        best = list(from_above)
        below = 0  # the best predecessor with fewer: each replica added costs
        for n in range(1, counts):
            if cost[n - 1] - change_seconds * (n - 1) < cost[below] - change_seconds * below:
                below = n - 1
            if cost[below] + change_seconds * (n - below) < cost[best[n]]:
                best[n] = below
        came_from.append(best)
        cost = [
            cost[best[n]] + change_seconds * max(n - best[n], 0) + slot_seconds * (n + 1) + price * misses[n][slot]
            for n in range(counts)
        ]
    last = min(range(counts), key=cost.__getitem__)
    path = [last]
    for best in reversed(came_from):
        path.append(best[path[-1]])
    return [n + 1 for n in reversed(path)]


def static_runs(
    simulate: Simulate, make_static: Callable[[int], Scaler], slo: Slo, target: float
) -> list[SimulationRun]:
    """Runs with 1, 2, 3, … replicas throughout, up to a count at which next to nothing is missed."""
    runs: list[SimulationRun] = []
    while True:
        count = len(runs) + 1
        runs.append(simulate(make_static(count), count))
        missed = 1.0 - attainment(runs[-1].requests, slo)
        is_flat = len(runs) > 1 and missed >= 1.0 - attainment(runs[-2].requests, slo) and missed < 0.5
        if missed <= (1.0 - target) / 50 or is_flat:
            return runs


def oracle(
    simulate: Simulate, statics: Sequence[SimulationRun], slo: Slo, target: float, start_seconds: float
) -> Timetable | None:
    """The cheapest timetable found that reaches the target; None if even the largest static fleet does not."""
    if attainment(statics[-1].requests, slo) < target:
        return None
    found = [_best_for(simulate, statics, slo, target, start_seconds, slot) for slot in SLOT_SECONDS]
    return min((one for one in found if one), key=lambda one: one.run.replica_seconds, default=None)


def _best_for(
    simulate: Simulate,
    statics: Sequence[SimulationRun],
    slo: Slo,
    target: float,
    start_seconds: float,
    slot_seconds: float,
) -> Timetable | None:
    slots = max(math.ceil(statics[0].horizon_seconds / slot_seconds), 1)
    misses = [misses_by_slot(run.requests, slo, slot_seconds, slots) for run in statics]
    low, high = math.log(slot_seconds / 1000), math.log(slot_seconds * 1000)
    best: Timetable | None = None
    for _ in range(_HALVINGS):
        price = math.exp((low + high) / 2)
        replicas = cheapest(misses, price, slot_seconds, start_seconds + _DRAIN_SECONDS)
        run = simulate(_scaler(replicas, slot_seconds, start_seconds), replicas[0])
        if attainment(run.requests, slo) >= target:
            high = (low + high) / 2
            if best is None or run.replica_seconds < best.run.replica_seconds:
                best = Timetable(slot_seconds=slot_seconds, replicas=tuple(replicas), run=run)
        else:
            low = (low + high) / 2
    return best


def _scaler(replicas: Sequence[int], slot_seconds: float, start_seconds: float) -> ScheduleScaler:
    """Starts early enough to be ready when the slot begins; ends with the slot."""
    entries: list[tuple[float, int]] = [(0.0, replicas[0])]
    for slot in range(1, len(replicas)):
        before, now = replicas[slot - 1], replicas[slot]
        if now > before:
            entries.append((max(slot * slot_seconds - start_seconds - _TICK_SECONDS, 0.0), now))
        elif now < before:
            entries.append((slot * slot_seconds, now))
    entries.sort(key=lambda entry: entry[0])
    return ScheduleScaler(entries, _TICK_SECONDS)
