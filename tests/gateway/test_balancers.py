"""Each balancer's own idea. `prefix_affinity`: sticky, spills over, spreads what is new, takes no more than a share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.routing import Endpoint, EndpointLoad, RequestHint
from argosy.gateway.balancers import (
    BALANCE,
    FREE_REQUESTS,
    LEAST_RATIO,
    least_loaded,
    power_of_two,
    prefix_affinity,
    requests,
    round_robin,
)


def _endpoint(replica: str) -> Endpoint:
    return Endpoint(replica=replica, address=f"127.0.0.1:{9000 + ord(replica[0])}", revision="v1")


def _load(replica: str, **facts: float) -> EndpointLoad:
    return EndpointLoad(endpoint=_endpoint(replica), **facts)  # type: ignore[arg-type]


def _chosen(balancer_result: Endpoint) -> str:
    return balancer_result.replica


def test_round_robin_takes_each_in_turn() -> None:
    loads = [_load("a", in_flight=50), _load("b"), _load("c")]
    assert [_chosen(round_robin(loads, RequestHint(sequence=turn))) for turn in range(5)] == ["a", "b", "c", "a", "b"]


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([_load("a", in_flight=2), _load("b", in_flight=1)], "b"),
        ([_load("a", in_flight=1, pending_prompt_tokens=9), _load("b", in_flight=1)], "b"),
        ([_load("a", num_requests_running=3, num_requests_waiting=1), _load("b", in_flight=3)], "b"),
        ([_load("a", num_requests_running=3), _load("b", in_flight=4)], "a"),
    ],
)
def test_least_loaded_counts_ours_and_what_others_have_there(loads: list[EndpointLoad], expected: str) -> None:
    assert {_chosen(least_loaded(loads, RequestHint(sequence=turn))) for turn in range(4)} == {expected}


def test_least_loaded_takes_turns_among_equals() -> None:
    loads = [_load(name) for name in "abc"]
    assert Counter(_chosen(least_loaded(loads, RequestHint(sequence=turn))) for turn in range(9)) == {
        "a": 3,
        "b": 3,
        "c": 3,
    }


def test_power_of_two_compares_two_different_ones() -> None:
    loads = [_load("a", in_flight=9), _load("b", in_flight=1), _load("c", in_flight=5)]
    assert _chosen(power_of_two(loads, RequestHint(draws=(0.0, 0.0)))) == "b"
    assert _chosen(power_of_two(loads, RequestHint(draws=(0.0, 0.99)))) == "c"
    assert _chosen(power_of_two(loads, RequestHint(draws=(0.99, 0.99)))) == "b"


@pytest.mark.parametrize(
    ("holder", "other", "expected", "why"),
    [
        ({}, {}, "holder", "both idle"),
        ({"pending_prompt_tokens": 40_000}, {}, "holder", "to compute the rest anew would cost all more"),
        ({"pending_prompt_tokens": 60_000}, {}, "other", "too much waits in front"),
        ({"pending_prompt_tokens": 60_000}, {"pending_prompt_tokens": 60_000}, "holder", "the other is no better"),
        ({"in_flight": 16, "max_num_seqs": 16}, {"in_flight": 12, "max_num_seqs": 16}, "holder", "one in line"),
        ({"in_flight": 24, "max_num_seqs": 16}, {"in_flight": 15, "max_num_seqs": 16}, "other", "nine in line"),
        ({"in_flight": 7, "max_num_seqs": 64}, {"max_num_seqs": 64}, "holder", "nearly idle: an eighth of its batch"),
        ({"in_flight": 8, "max_num_seqs": 64}, {"max_num_seqs": 64}, "other", "busy, and the other has nothing to do"),
        ({"in_flight": 40}, {"in_flight": 9}, "other", "more than its share"),
        ({"num_requests_waiting": 1, "kv_cache_usage_ratio": 0.99}, {}, "other", "no memory for one more"),
        ({"kv_cache_usage_ratio": 0.99}, {}, "holder", "a full cache without a queue is a cache in use"),
    ],
)
def test_affinity_sticks_to_the_holder_until_it_is_saturated(
    holder: dict[str, float], other: dict[str, float], expected: str, why: str
) -> None:
    loads = [_load("other", **other), _load("holder", held_blocks=90, **holder)]
    hint = RequestHint(prompt_tokens=6400, num_blocks=100, first_new_block=7)
    assert _chosen(prefix_affinity(loads, hint)) == expected, why


def test_affinity_prefers_who_holds_more() -> None:
    loads = [_load("a", held_blocks=20), _load("b", held_blocks=70), _load("c")]
    hint = RequestHint(prompt_tokens=6400, num_blocks=100, first_new_block=7)
    assert _chosen(prefix_affinity(loads, hint)) == "b"


def test_a_shared_system_prompt_does_not_herd_new_conversations() -> None:
    """Only one replica holds the few blocks all conversations begin with; they go to all, evenly."""
    loads = [_load("a", held_blocks=3), _load("b"), _load("c"), _load("d")]
    chosen = Counter(
        _chosen(prefix_affinity(loads, RequestHint(prompt_tokens=6400, num_blocks=100, first_new_block=key)))
        for key in range(1, 401)
    )
    assert set(chosen) == {"a", "b", "c", "d"}
    assert max(chosen.values()) < 150


def test_the_same_new_prefix_goes_to_the_same_replica_through_any_gateway() -> None:
    """Another gateway lists the endpoints in another order, and has counted other requests."""
    loads = [_load(name) for name in "abcd"]
    for key in range(1, 50):
        here = RequestHint(prompt_tokens=900, num_blocks=14, first_new_block=key, sequence=3)
        there = RequestHint(prompt_tokens=900, num_blocks=14, first_new_block=key, sequence=999)
        assert prefix_affinity(loads, here) == prefix_affinity(loads[::-1], there)


def test_a_replica_that_goes_moves_only_its_own_prefixes() -> None:
    loads = [_load(name) for name in "abcd"]
    for key in range(1, 100):
        hint = RequestHint(prompt_tokens=900, num_blocks=14, first_new_block=key)
        before = _chosen(prefix_affinity(loads, hint))
        if before != "d":
            assert _chosen(prefix_affinity(loads[:3], hint)) == before


@given(
    count=st.integers(2, 8),
    held=st.lists(st.integers(0, 100), min_size=8, max_size=8),
    prompts=st.lists(st.integers(1, 10_000), min_size=1, max_size=80),
)
def test_affinity_never_gives_a_replica_more_than_its_share(count: int, held: list[int], prompts: list[int]) -> None:
    """Whatever is held where, and when nothing ever ends: max <= BALANCE * mean + 1, beyond a few free ones."""
    names = "abcdefgh"[:count]
    in_flight = Counter(dict.fromkeys(names, 0))
    for sequence, tokens in enumerate(prompts):
        loads = [_load(name, in_flight=in_flight[name], held_blocks=held[at]) for at, name in enumerate(names)]
        hint = RequestHint(prompt_tokens=tokens, num_blocks=100, first_new_block=1, sequence=sequence)
        in_flight[_chosen(prefix_affinity(loads, hint))] += 1
        mean, least = in_flight.total() / count, min(in_flight.values())
        assert max(in_flight.values()) <= max(FREE_REQUESTS, BALANCE * mean + 1)
        assert max(in_flight.values()) <= max(FREE_REQUESTS, LEAST_RATIO * (least + 1) + 1)


def test_requests_are_the_larger_of_what_we_sent_and_what_the_replica_said() -> None:
    assert requests(_load("a", in_flight=3, num_requests_running=1, num_requests_waiting=1)) == 3
    assert requests(_load("a", in_flight=1, num_requests_running=2, num_requests_waiting=2)) == 4


def _idle(names: str) -> Sequence[EndpointLoad]:
    return [_load(name) for name in names]


def test_new_prefixes_spread_evenly_when_nobody_is_busy() -> None:
    chosen = Counter(
        _chosen(prefix_affinity(_idle("abcd"), RequestHint(prompt_tokens=900, num_blocks=14, first_new_block=key)))
        for key in range(1, 1001)
    )
    assert all(200 < chosen[name] < 300 for name in "abcd")
