from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.serving.admission_policy import AdmissionLimits
from argosy.simulator.replica_model import PromptClock, ReplicaModel
from argosy.simulator.requests import SimulatedRequest
from argosy.simulator.step_times import StepTimes, attended_tokens, read_profile, step_seconds

PROFILE = msgspec.structs.replace(read_profile("smollm2-openvino-2cpu"), max_num_seqs=8)


def request(at: float, prompt: int, output: int, blocks: tuple[int, ...] = ()) -> SimulatedRequest:
    return SimulatedRequest(at_seconds=at, prompt_tokens=prompt, output_tokens=output, blocks=blocks)


def run(
    requests: Sequence[SimulatedRequest],
    profile: StepTimes = PROFILE,
    *,
    limits: AdmissionLimits | None = None,
    block_tokens: int = 64,
) -> ReplicaModel:
    """Let one replica answer them all."""
    limits = limits or AdmissionLimits(max_running=profile.max_num_seqs, max_queue_seconds=1e9)
    model = ReplicaModel("r", profile, limits, block_tokens)
    waiting = sorted(requests, key=lambda one: one.at_seconds)
    while waiting or model.next_at < math.inf:
        if waiting and waiting[0].at_seconds <= model.next_at:
            one = waiting.pop(0)
            model.offer(one, one.at_seconds)
        else:
            model.advance(model.next_at)
    return model


def naive(requests: Sequence[SimulatedRequest], profile: StepTimes) -> list[tuple[float, float]]:
    """First token and end of each request, one step after the other, by the words of the rule."""
    asked = sorted(enumerate(requests), key=lambda pair: pair[1].at_seconds)
    first: dict[int, float] = {}
    end: dict[int, float] = {}
    computed = {index: 0 for index, _ in asked}
    got = {index: 0 for index, _ in asked}
    now, last_size, running, line = 0.0, 0, list[int](), [index for index, _ in asked]
    while len(end) < len(requests):
        while line and requests[line[0]].at_seconds <= now and len(running) < profile.max_num_seqs:
            running.append(line.pop(0))
        if not running:
            now = requests[line[0]].at_seconds
            continue
        answering = [index for index in running if index in first]
        budget, pieces = profile.max_num_batched_tokens - len(answering), {}
        for index in running:
            if index not in first and budget > 0:
                pieces[index] = min(requests[index].prompt_tokens - computed[index], budget)
                budget -= pieces[index]
        size = len(answering) + sum(pieces.values())
        now += step_seconds(
            profile,
            prompt_tokens=sum(pieces.values()),
            prompt_context_tokens=sum(
                attended_tokens(prompt_tokens=piece, cached_tokens=computed[index]) for index, piece in pieces.items()
            ),
            num_sequences=len(answering) + len(pieces),
            context_tokens=sum(computed[index] for index in (*answering, *pieces)),
            is_size_new=size != last_size,
        )
        last_size = size
        for index in answering:
            computed[index] += 1
            got[index] += 1
        for index, piece in pieces.items():
            computed[index] += piece
            if computed[index] == requests[index].prompt_tokens:
                first[index] = now
                got[index] = 1
        for index in [index for index in running if got[index] >= requests[index].output_tokens]:
            end[index] = now
            running.remove(index)
    return [(first[index], end[index]) for index in range(len(requests))]


asked = st.lists(
    st.tuples(st.floats(0, 5), st.integers(1, 1500), st.integers(1, 80)),
    min_size=1,
    max_size=25,
    unique_by=lambda t: t[0],
)


@settings(max_examples=60, deadline=None)
@given(asked)
def test_runs_of_steps_in_one_are_the_steps_one_by_one(drawn: list[tuple[float, int, int]]) -> None:
    profile = msgspec.structs.replace(PROFILE, kv_cache_tokens=10**6)
    requests = [request(at, prompt, output) for at, prompt, output in sorted(drawn)]
    run(requests, profile)
    seen = [(one.first_token_at, one.ended_at) for one in requests]
    for (first, end), (wanted_first, wanted_end) in zip(seen, naive(requests, profile), strict=True):
        assert first == pytest.approx(wanted_first, abs=1e-6)
        assert end == pytest.approx(wanted_end, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(asked, st.integers(1600, 4000))
def test_a_small_kv_cache_delays_and_loses_nobody(drawn: list[tuple[float, int, int]], tokens: int) -> None:
    requests = [request(at, prompt, output, (number % 3, 7)) for number, (at, prompt, output) in enumerate(drawn)]
    model = run(requests, msgspec.structs.replace(PROFILE, kv_cache_tokens=tokens))
    for one in requests:
        assert one.ended_at is not None
        assert one.first_token_at is not None
        assert one.at_seconds < one.first_token_at <= one.ended_at
    assert model.is_idle
    assert model.kv_cache_usage_ratio == 0.0
    assert model.num_requests_running == model.num_requests_waiting == 0


def test_a_prompt_alone_takes_what_the_profile_says() -> None:
    one = request(3.0, 700, 1)
    run([one])
    assert one.ttft_seconds == pytest.approx(PromptClock(PROFILE).seconds(700))


def test_a_prefix_is_computed_once_and_cheaper_the_second_time() -> None:
    blocks = tuple(range(1, 11))
    first, second, at_once = request(0.0, 640, 4, blocks), request(5.0, 640, 4, blocks), request(5.001, 640, 4, blocks)
    run([first, second, at_once])
    assert (first.cached_tokens, second.cached_tokens) == (0, 639)
    assert (second.ttft_seconds or 9) < 0.3 * (first.ttft_seconds or 0)


def test_two_equal_prompts_at_once_are_both_computed() -> None:
    blocks = tuple(range(1, 11))
    pair = [request(0.0, 640, 4, blocks), request(0.001, 640, 4, blocks)]
    run(pair)
    assert [one.cached_tokens for one in pair] == [0, 0]


def test_the_least_recently_used_blocks_go_first_and_the_beginning_of_a_prompt_last() -> None:
    profile = msgspec.structs.replace(PROFILE, kv_cache_tokens=1500)
    old, young = tuple(range(10)), tuple(range(100, 110))
    requests = [
        request(0.0, 641, 1, old),
        request(2.0, 641, 1, young),
        request(4.0, 641, 1, (7, 8)),
        request(6.0, 641, 1, young),
    ]
    requests.append(request(8.0, 641, 1, old))
    run(requests, profile)
    assert [one.cached_tokens for one in requests[-2:]] == [640, 192]


def test_answers_that_have_no_room_push_out_the_youngest_which_is_computed_again() -> None:
    profile = msgspec.structs.replace(PROFILE, kv_cache_tokens=1000)
    elder, younger = request(0.0, 400, 300), request(0.1, 400, 300)
    run([elder, younger], profile)
    assert (elder.ended_at or 0) < (younger.ended_at or 0)
    alone = request(0.0, 400, 300)
    run([alone], profile)
    assert (younger.ended_at or 0) - (elder.ended_at or 0) < (alone.ended_at or 0)


def test_the_door_is_the_one_that_serves() -> None:
    limits = AdmissionLimits(max_running=1, max_waiting=1, max_queue_seconds=1.0)
    crowd = [request(0.0, 100, 400), request(0.1, 100, 4), request(0.2, 100, 4)]
    run(crowd, limits=limits)
    assert [one.ended_at is not None for one in crowd] == [True, False, False]
    assert "max_waiting 1" in crowd[2].failure
    assert "within 1 s" in crowd[1].failure


def test_how_busy_it_was_is_told_at_any_moment() -> None:
    one = request(1.0, 100, 50)
    model = ReplicaModel("r", PROFILE, AdmissionLimits(max_running=4), 64)
    model.offer(one, 1.0)
    model.advance(model.next_at)
    model.advance(model.next_at)
    assert model.busy_seconds(1.05) == pytest.approx(0.05)
    while model.next_at < math.inf:
        model.advance(model.next_at)
    assert model.busy_seconds(99.0) == pytest.approx((one.ended_at or 0) - 1.0)
