from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.control.autoscale import ScalingOutcome, desired_replicas
from argosy.control.scaling_history import ScalingHistory
from argosy.core.scaling import ScalingDecision, ScalingMetric, ScalingPolicy, ScalingSample


def sample(now: float, ready: int, **fields: Any) -> ScalingSample:
    return ScalingSample(now=now, interval_seconds=1.0, ready_replicas=ready, **fields)


class Service:
    """A service whose replicas are ready at once, decided upon every second."""

    def __init__(self, policy: ScalingPolicy, replicas: int = 1) -> None:
        self.policy = policy
        self.history = ScalingHistory()
        self.replicas = replicas
        self.now = 1000.0

    def see(self, seconds: int = 1, **fields: Any) -> ScalingDecision:
        for _ in range(seconds):
            self.now += 1.0
            outcome = desired_replicas(self.policy, sample(self.now, self.replicas, **fields), self.history, self.now)
            self.history, self.replicas = outcome.history, outcome.decision.replicas
        return outcome.decision


def by_concurrency(**fields: Any) -> ScalingPolicy:
    plain = {"tolerance": 0.0, "window_seconds": 1.0, "panic_window_seconds": 1.0, "panic_threshold": 1e9}
    given_fields = {**plain, "max_replicas": 100, "max_scale_up_ratio": 100.0, **fields}
    return msgspec.convert({"metric": "concurrency", "target": 1.0, **given_fields}, ScalingPolicy)


@pytest.mark.parametrize(
    ("policy", "fields", "replicas"),
    [
        (ScalingPolicy(metric=ScalingMetric.CONCURRENCY, target=16.0), {"num_requests_running": 50}, 4),
        (ScalingPolicy(metric=ScalingMetric.CONCURRENCY, target=16.0), {"num_requests_waiting": 33}, 3),
        (ScalingPolicy(metric=ScalingMetric.QUEUE_LENGTH, target=2.0), {"num_requests_waiting": 9}, 5),
        (ScalingPolicy(metric=ScalingMetric.QUEUE_LENGTH, target=2.0), {"num_requests_running": 60}, 1),
        (ScalingPolicy(metric=ScalingMetric.QUEUE_TIME, target=0.3), {"started": 10, "queue_seconds": 9.0}, 3),
        (ScalingPolicy(metric=ScalingMetric.KV_CACHE_USAGE, target=0.4), {"kv_cache_usage_ratio": 0.9}, 3),
    ],
)
def test_a_metric_asks_for_its_ratio_to_the_target(
    policy: ScalingPolicy, fields: dict[str, Any], replicas: int
) -> None:
    service = Service(msgspec.structs.replace(policy, max_replicas=10, max_scale_up_ratio=10.0))
    assert service.see(**fields).replicas == replicas


@pytest.mark.parametrize(("running", "replicas"), [(32, 3), (33, 3), (34, 4), (27, 3), (26, 3)])
def test_within_the_tolerance_nothing_changes(running: int, replicas: int) -> None:
    policy = by_concurrency(target=10.0, tolerance=0.1)
    assert Service(policy, 3).see(num_requests_running=running).replicas == replicas


def test_the_highest_wish_of_the_window_rules_a_fall() -> None:
    # Source: KEP-853, "Stabilization Window".
    service = Service(by_concurrency(scale_down_stabilization_seconds=10.0), 10)
    decided = [service.see(num_requests_running=wish).replicas for wish in (10, 9, 8, 9, 9, 8, 9, 8, 9, 8)]
    assert decided == [10] * 10
    assert service.see(num_requests_running=8).replicas == 9


def test_the_lowest_wish_of_its_window_rules_a_rise() -> None:
    # Source: KEP-853, "Stabilization Window".
    service = Service(by_concurrency(scale_up_stabilization_seconds=6.0), 2)
    decided = [service.see(num_requests_running=wish).replicas for wish in (2, 3, 19, 10, 3, 4)]
    assert decided == [2] * 6
    assert service.see(num_requests_running=5).replicas == 3


def test_panic_raises_at_once_and_lowers_nothing_until_a_window_was_calm() -> None:
    policy = by_concurrency(
        window_seconds=60.0,
        panic_window_seconds=6.0,
        panic_threshold=2.0,
        scale_down_stabilization_seconds=1.0,
        target=10.0,
    )
    service = Service(policy, 1)
    service.see(60, num_requests_running=10)
    risen = service.see(6, num_requests_running=60)
    assert risen.replicas == 6, "the mean of the long window is 15 and would ask for 2"
    assert risen.reason == "Panic"
    assert service.see(50, num_requests_running=10).replicas == 6
    assert service.see(70, num_requests_running=10).replicas == 1


def test_growth_has_a_pace() -> None:
    decision = Service(by_concurrency(max_scale_up_ratio=4.0), 2).see(num_requests_running=90)
    assert (decision.replicas, decision.is_limited) == (8, True)
    assert "4 times" in decision.message


def test_the_policy_bounds_what_the_metric_asks() -> None:
    policy = by_concurrency(min_replicas=2, max_replicas=5)
    assert Service(policy, 3).see(num_requests_running=90).replicas == 5
    assert Service(policy, 2).see(num_requests_running=0).replicas == 2


def test_an_empty_queue_takes_one_replica_at_a_time_and_keeps_a_seat_for_each_request() -> None:
    policy = by_concurrency(metric="queue_length", target=2.0, scale_down_stabilization_seconds=1.0)
    service = Service(policy, 5)
    assert service.see(2, num_requests_running=30, max_num_seqs=16).replicas == 4
    assert service.see(20, num_requests_running=30, max_num_seqs=16).replicas == 2


class TestZero:
    policy = ScalingPolicy(
        min_replicas=0, max_replicas=4, scale_to_zero_after_seconds=300.0, scale_down_stabilization_seconds=1.0
    )

    def test_the_last_replica_goes_after_a_long_silence_and_not_before(self) -> None:
        service = Service(self.policy)
        service.see(arrivals=1)
        assert service.see(299).replicas == 1
        assert service.see(2).replicas == 0
        assert "idle for 300 s" in service.see().message or service.replicas == 0

    def test_f14_a_held_request_wakes_it_at_once(self) -> None:
        service = Service(self.policy, 0)
        assert service.see(10).replicas == 0
        woken = service.see(num_requests_held=50, arrivals=50)
        assert woken.replicas >= 1
        assert service.see().replicas >= 1, "the request is still on its way: it must not fall asleep again"

    def test_a_running_request_keeps_the_last_replica(self) -> None:
        assert Service(self.policy).see(400, num_requests_running=1).replicas == 1

    def test_a_minimum_above_zero_is_kept(self) -> None:
        service = Service(msgspec.structs.replace(self.policy, min_replicas=1))
        assert service.see(1000).replicas == 1


class TestDoubt:
    @pytest.mark.parametrize("metric", list(ScalingMetric))
    def test_f13_a_stale_sample_never_takes_a_replica(self, metric: ScalingMetric) -> None:
        policy = by_concurrency(metric=metric, target=None, scale_down_stabilization_seconds=1.0, min_replicas=0)
        service = Service(policy, 5)
        service.see(3, num_requests_running=80, num_requests_waiting=10, arrivals=3)
        before = service.replicas
        assert service.see(900, is_stale=True).replicas >= before

    @pytest.mark.parametrize("broken", [{"arrivals": -5}, {"queue_seconds": math.nan}, {"kv_cache_usage_ratio": 1e999}])
    def test_f13_nonsense_counts_as_stale(self, broken: dict[str, Any]) -> None:
        service = Service(by_concurrency(scale_down_stabilization_seconds=1.0), 5)
        service.see(num_requests_running=5)
        assert service.see(100, **broken).replicas == 5

    def test_f13_it_may_rise_for_what_waits_at_the_gateway(self) -> None:
        service = Service(ScalingPolicy(min_replicas=0, max_replicas=4), 0)
        assert service.see(is_stale=True, num_requests_held=1).replicas == 1

    def test_without_a_past_what_runs_is_held(self) -> None:
        outcome = desired_replicas(by_concurrency(), sample(1.0, 7), ScalingHistory(), 1.0)
        assert outcome.decision.replicas == 7

    @pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
    def test_f11_a_jump_of_the_clock_is_neither_idleness_nor_evidence(self, jump: float) -> None:
        service = Service(TestZero.policy)
        service.see(10, arrivals=1)
        service.now += jump
        assert service.see().replicas == 1


seen_samples = st.builds(
    lambda ready, running, waiting, held, arrivals, stale: {
        "ready": ready,
        "num_requests_running": running,
        "num_requests_waiting": waiting,
        "num_requests_held": held,
        "arrivals": arrivals,
        "completions": arrivals,
        "slo_good": arrivals // 2,
        "prompt_tokens": arrivals * 100,
        "generation_tokens": arrivals * 30,
        "is_stale": stale,
    },
    st.integers(0, 20),
    st.integers(0, 200),
    st.integers(0, 200),
    st.integers(0, 20),
    st.integers(0, 100),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ScalingMetric),
    st.integers(0, 3),
    st.lists(st.tuples(st.floats(-100, 100), seen_samples), min_size=1, max_size=60),
)
def test_whatever_is_seen_the_decision_is_within_bounds_and_says_why(
    metric: ScalingMetric, least: int, seen: list[tuple[float, dict[str, int]]]
) -> None:
    policy = ScalingPolicy(metric=metric, min_replicas=least, max_replicas=8)
    history, now = ScalingHistory(), 0.0
    for step, fields in seen:
        now += step
        ready = fields.pop("ready")
        outcome: ScalingOutcome = desired_replicas(policy, sample(now, ready, **fields), history, now)
        before, history = history.replicas, outcome.history
        decision = outcome.decision
        assert least <= decision.replicas <= 8
        assert decision.reason
        assert decision.message
        assert history.replicas == decision.replicas
        if fields["is_stale"] and before is not None:
            assert decision.replicas >= min(before, 8)
        if fields["num_requests_held"]:
            assert decision.replicas >= 1
        assert msgspec.json.decode(msgspec.json.encode(history), type=ScalingHistory) == history
