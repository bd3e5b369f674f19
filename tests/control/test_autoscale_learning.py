from __future__ import annotations

import math

import pytest

from argosy.control.autoscale import desired_replicas
from argosy.control.capacity import CapacityEstimate, costs_of, learned
from argosy.control.demand import dispersion, forecast
from argosy.control.load_limit import LEAST_LIMIT, MOST_LIMIT, Answers, LoadLimit, adjusted
from argosy.control.scaling_history import ScalingHistory, start_seconds, with_sample
from argosy.control.spans import Span
from argosy.core.scaling import ScalingPolicy, ScalingSample

PROMPT_COST, TOKEN_COST, IDLE_PACE = 0.0003, 0.0008, 90.0


def sight(prompts: float, tokens: float, replicas: int = 4, **fields: float) -> Span:
    """Ten seconds of a service whose replicas obey the law of the pace exactly."""
    load = (PROMPT_COST * prompts + TOKEN_COST * tokens) / replicas
    pace = IDLE_PACE * (1 - load)
    counted = {
        "prompt_tokens": prompts * 10,
        "generation_tokens": tokens * 10,
        "ready_seconds": replicas * 10,
        "running_seconds": tokens * 10 / pace,
    }
    return Span(end=0.0, seconds=10.0, **{**counted, **fields})


def test_the_costs_of_tokens_are_found_from_the_pace() -> None:
    estimate = CapacityEstimate()
    for number in range(200):
        prompts = 3000 + 2000 * math.sin(number)
        estimate = learned(estimate, sight(prompts, 600 + 300 * math.cos(number * 0.7)))
    costs = costs_of(estimate)
    assert costs is not None
    assert costs.prompt_token_seconds == pytest.approx(PROMPT_COST, rel=0.15)
    assert costs.generated_token_seconds == pytest.approx(TOKEN_COST, rel=0.25)
    assert costs.idle_pace == pytest.approx(IDLE_PACE, rel=0.1)


def test_prompts_that_always_come_with_as_many_tokens_have_a_cost_together() -> None:
    estimate = CapacityEstimate()
    for number in range(200):
        prompts = 3000 + 2500 * math.sin(number)
        estimate = learned(estimate, sight(prompts, prompts / 5))
    costs = costs_of(estimate)
    assert costs is not None
    exact = PROMPT_COST * 4000 + TOKEN_COST * 800
    assert costs.work_seconds(4000, 800) == pytest.approx(exact, rel=0.15)
    assert costs.prompt_token_seconds > 0
    assert costs.generated_token_seconds > 0


def test_too_little_is_not_taken_for_knowledge() -> None:
    assert costs_of(CapacityEstimate()) is None
    assert costs_of(learned(CapacityEstimate(), sight(3000, 600))) is None


@pytest.mark.parametrize(
    "shown",
    [
        sight(3000, 600, waiting_seconds=1e6),
        sight(3000, 600, held_seconds=5.0),
        sight(0, 0),
        sight(3000, 600, running_seconds=0.1),
        sight(3000, 600, ready_seconds=0.0),
    ],
)
def test_queues_and_silence_teach_nothing(shown: Span) -> None:
    estimate = learned(CapacityEstimate(), sight(3000, 600))
    assert learned(estimate, shown) == estimate


def test_a_light_load_everywhere_is_not_taken_for_a_limitless_replica() -> None:
    """All sights alike: nothing says how the pace falls, so the belief holds that the load is not negligible."""
    estimate = CapacityEstimate()
    for _ in range(10):
        estimate = learned(estimate, sight(1000, 200))
    costs = costs_of(estimate)
    assert costs is not None
    assert costs.work_seconds(1000, 200) / 4 > 0.05


def rested(miss_ratio: float, load_of: float = 1.0, hopeless: float = 0.0) -> LoadLimit:
    """Where the limit rests if the load is always this share of it; misses grow steeply past a load of 0.6."""
    limit = LoadLimit()
    for _ in range(2000):
        load = limit.limit * load_of
        missed = hopeless + (miss_ratio * max(load - 0.6, 0.0) / 0.1)
        answers = Answers(
            seconds=10.0, load=load, strain=load, completions=1000, slo_good=1000 * (1 - min(missed, 1.0))
        )
        limit = adjusted(limit, answers, 0.99)
    return limit


def test_the_limit_rests_where_the_allowed_share_misses() -> None:
    limit = rested(miss_ratio=0.05)
    assert 0.6 < limit.limit <= 0.65
    assert limit.attained == pytest.approx(0.993, abs=0.002)


def test_an_idle_service_proves_nothing() -> None:
    assert rested(miss_ratio=0.05, load_of=0.3).limit == LoadLimit().limit


def test_misses_that_no_replica_could_have_helped_do_not_lower_it_for_good() -> None:
    limit = LoadLimit()
    for number in range(600):
        load = 0.2 if number < 60 else limit.limit
        answers = Answers(seconds=10.0, load=load, strain=load, completions=1000, slo_good=880)
        limit = adjusted(limit, answers, 0.99)
    assert limit.limit == MOST_LIMIT
    assert rested(miss_ratio=0.05, hopeless=0.02).limit >= LEAST_LIMIT


def arrivals(counts: list[int], **fields: float) -> ScalingHistory:
    history = ScalingHistory()
    for second, count in enumerate(counts):
        seen = ScalingSample(now=float(second), interval_seconds=1.0, ready_replicas=2, arrivals=count, **fields)  # type: ignore[arg-type]
        history = with_sample(history, seen, float(second), 60.0)
    return history


def test_bursts_are_told_from_chance() -> None:
    assert dispersion(arrivals([5] * 60)) == 1.0
    assert dispersion(arrivals([0] * 9 + [50] + [0] * 9 + [50])) > 10


def test_a_surge_rules_before_the_window_has_seen_it() -> None:
    estimate = CapacityEstimate()
    for number in range(50):
        estimate = learned(estimate, sight(3000 + 2000 * math.sin(number), 600))
    costs = costs_of(estimate)
    assert costs is not None
    mix = Span(end=0.0, completions=100, prompt_tokens=30_000, generation_tokens=6_000)

    def rate(counts: list[int]) -> float:
        history = ScalingHistory(
            **{name: getattr(arrivals(counts), name) for name in ("watched_seconds", "spans", "clock_seconds")}, mix=mix
        )
        return forecast(history, costs, 60.0).requests_per_second

    assert rate([10] * 60) == pytest.approx(10)
    assert rate([10] * 50 + [80] * 10) > 60
    assert rate([10, 11, 9, 12, 8, 10] * 10) == pytest.approx(10)


def test_how_long_a_replica_takes_is_learned() -> None:
    history, now = ScalingHistory(), 0.0
    for _ in range(5):
        for starting, ready in [(0, 2), (1, 2), (1, 2), (1, 2), (0, 3)]:
            now += 1.0
            seen = ScalingSample(now=now, interval_seconds=1.0, ready_replicas=ready, starting_replicas=starting)
            history = with_sample(history, seen, now, 60.0)
    assert start_seconds(history) == pytest.approx(3.0, rel=0.4)


def test_the_decision_tells_its_reckoning() -> None:
    policy = ScalingPolicy(min_replicas=1, max_replicas=20)
    history, replicas, message = ScalingHistory(), 4, ""
    for second in range(400):
        rate = 10 + 5 * math.sin(second / 30)
        load = (PROMPT_COST * 300 + TOKEN_COST * 60) * rate / replicas
        running = rate * 60 / (IDLE_PACE * max(1 - load, 0.05))
        seen = ScalingSample(
            now=float(second), interval_seconds=1.0, ready_replicas=replicas, arrivals=round(rate),
            completions=round(rate), slo_good=round(rate), prompt_tokens=round(300 * rate),
            generation_tokens=round(60 * rate), num_requests_running=round(running), max_num_seqs=64,
        )  # fmt: skip
        outcome = desired_replicas(policy, seen, history, float(second))
        history, replicas, message = outcome.history, outcome.decision.replicas, outcome.decision.message
    assert "requests/s take" in message
    assert "at a load of at most" in message
    assert "replicas" in message
    assert 1 <= replicas <= 5
