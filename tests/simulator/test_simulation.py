from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.core.inference_service import GatewayPolicy
from argosy.core.scaling import ScalingPolicy, Slo
from argosy.simulator.arrivals import DrawnArrivals, drawn_requests, fresh
from argosy.simulator.requests import SimulatedRequest
from argosy.simulator.scalers import ArgosyScaler, ScheduleScaler, StaticScaler
from argosy.simulator.simulation import Scaler, Seen, Simulation, SimulationRun, SimulationSpec
from argosy.simulator.step_times import read_profile
from argosy.simulator.study import reversals

PROFILE = read_profile("smollm2-openvino-2cpu")
SPEC = SimulationSpec(profile=PROFILE)
LOAD = drawn_requests(DrawnArrivals(rate=12.0, seconds=120.0, prompt=250.0, output=40.0), seed=3)


def simulate(scaler: Scaler, requests: list[SimulatedRequest] | None = None, **fields: object) -> SimulationRun:
    spec = msgspec.structs.replace(SPEC, **fields)
    return Simulation(spec, fresh(LOAD if requests is None else requests), scaler).run()


class Wild:
    """Asks for numbers without sense, none at all included."""

    interval_seconds = 1.0

    def __init__(self, wishes: list[int]) -> None:
        self._wishes = wishes
        self.seen: list[Seen] = []

    def decide(self, seen: Seen) -> tuple[int, str]:
        self.seen.append(seen)
        held = 1 if seen.sample.num_requests_held else 0
        return max(self._wishes[len(self.seen) % len(self._wishes)], held), "wild"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_whatever_is_decided_every_request_ends_once_and_is_counted_once(wishes: list[int]) -> None:
    scaler = Wild(wishes)
    run = simulate(scaler, initial_replicas=2)
    ended = [one for one in run.requests if one.ended_at is not None]
    failed = [one for one in run.requests if one.failure]
    assert len(ended) + len(failed) == len(LOAD)
    assert not set(map(id, ended)) & set(map(id, failed))
    counted = sum(seen.sample.completions for seen in scaler.seen)
    assert counted <= len(ended)
    assert sum(seen.sample.arrivals for seen in scaler.seen) <= len(LOAD)
    assert all(0 <= seen.cpu_usage_ratio <= 1 for seen in scaler.seen)
    assert all(seen.sample.num_requests_running >= 0 <= seen.sample.num_requests_waiting for seen in scaler.seen)


@pytest.mark.parametrize("make", [lambda: StaticScaler(3), lambda: ArgosyScaler(ScalingPolicy(max_replicas=9), 1.0)])
def test_the_same_seed_gives_the_same_figures(make: Callable[[], Scaler]) -> None:
    first, second = simulate(make(), initial_replicas=3), simulate(make(), initial_replicas=3)
    assert [one.ended_at for one in first.requests] == [one.ended_at for one in second.requests]
    assert first.replica_seconds == second.replica_seconds


def test_a_static_fleet_costs_its_number_times_the_time() -> None:
    run = simulate(StaticScaler(3), initial_replicas=3)
    assert run.replica_seconds == pytest.approx(3 * run.horizon_seconds)


def test_a_replica_costs_from_its_start_and_serves_once_it_is_ready() -> None:
    run = simulate(ScheduleScaler([(0.0, 1), (20.0, 2), (60.0, 1)], 1.0), initial_replicas=1, start_seconds=5.0)
    counts = [(moment.at_seconds, moment.desired, moment.ready) for moment in run.moments]
    assert counts == [(0.0, 1, 1), (20.0, 2, 1), (25.0, 2, 2), (60.0, 1, 1)]
    assert run.horizon_seconds + 40.0 <= run.replica_seconds < run.horizon_seconds + 50.0, "it drains before it ends"


def test_f14_a_service_at_zero_holds_the_first_requests_and_starts_one_replica() -> None:
    policy = ScalingPolicy(min_replicas=0, max_replicas=4, scale_to_zero_after_seconds=30.0)
    crowd = [SimulatedRequest(at_seconds=50.0 + 0.01 * n, prompt_tokens=50, output_tokens=5) for n in range(50)]
    crowd.append(SimulatedRequest(at_seconds=200.0, prompt_tokens=50, output_tokens=5))
    run = simulate(ArgosyScaler(policy, 0.5), crowd, initial_replicas=0)
    assert all(one.ended_at is not None for one in run.requests)
    assert max(one.ttft_seconds or 99 for one in run.requests) < PROFILE.start_seconds + 3.0
    woken = [moment.desired for moment in run.moments if 50 <= moment.at_seconds < 52]
    assert woken[0] == 1
    assert 0 in [moment.desired for moment in run.moments if 60 < moment.at_seconds < 200]
    assert run.replica_seconds < 60.0


def test_held_requests_are_bounded() -> None:
    crowd = [SimulatedRequest(at_seconds=1.0 + n / 1000, prompt_tokens=10, output_tokens=2) for n in range(30)]
    run = simulate(Wild([0]), crowd, initial_replicas=0, gateway=GatewayPolicy(max_held=10))
    assert sum(bool(one.failure) for one in run.requests) == 20


def test_a_warm_spare_is_ready_sooner_and_its_cost_is_shown() -> None:
    schedule = [(0.0, 1), (20.0, 2)]
    profile = msgspec.structs.replace(PROFILE, warm_spare_seconds=0.3)
    cold = simulate(ScheduleScaler(schedule, 1.0), profile=profile, start_seconds=10.0)
    warm = simulate(ScheduleScaler(schedule, 1.0), profile=profile, start_seconds=10.0, warm_spares=1)
    assert [moment.at_seconds for moment in cold.moments if moment.ready == 2] == [30.0]
    assert [moment.at_seconds for moment in warm.moments if moment.ready == 2] == [pytest.approx(20.3)]
    assert warm.replica_seconds > cold.replica_seconds + 90


def test_a_request_beyond_the_context_is_refused() -> None:
    run = simulate(StaticScaler(1), [SimulatedRequest(at_seconds=0.0, prompt_tokens=9000, output_tokens=1)])
    assert run.requests[0].failure


def test_flat_poisson_traffic_turns_the_number_at_most_twice_in_ten_minutes() -> None:
    flat = drawn_requests(DrawnArrivals(rate=20.0, seconds=1200.0, prompt=300.0, output=60.0), seed=1)
    run = simulate(ArgosyScaler(ScalingPolicy(max_replicas=30), 1.0), flat, initial_replicas=4)
    late = [moment for moment in run.moments if moment.at_seconds > 300]
    assert reversals(late) <= 2 * (1200 - 300) / 600


def test_after_a_step_of_four_times_the_load_the_slo_holds_again_soon() -> None:
    step = drawn_requests(DrawnArrivals(rate=5.0, to=20.0, at=400.0, seconds=700.0, prompt=300.0, output=60.0), seed=1)
    run = simulate(ArgosyScaler(ScalingPolicy(max_replicas=30), 1.0), step, initial_replicas=2)
    slo = Slo()
    late = [one for one in run.requests if one.at_seconds > 430]
    good = [one for one in late if (one.ttft_seconds or 9) <= slo.ttft_seconds and (one.tpot_seconds or 9) <= 0.1]
    assert len(good) / len(late) > 0.97
