"""What every balancer promises, whatever its idea: any set of endpoints works, the same input gives the same choice."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.inference_service import BalancerName
from argosy.core.routing import Balancer, Endpoint, EndpointLoad, RequestHint
from argosy.gateway.balancers import BALANCERS

_tokens = st.integers(0, 2**40)
_counts = st.integers(0, 2**31)


@st.composite
def _loads(draw: st.DrawFn) -> list[EndpointLoad]:
    """Between one and eight endpoints in any state, nonsense included."""
    return [
        EndpointLoad(
            endpoint=Endpoint(replica=f"chat-v1-{index}", address=f"127.0.0.1:{9000 + index}", revision="v1"),
            in_flight=draw(_counts),
            pending_prompt_tokens=draw(_tokens),
            num_requests_running=draw(_counts),
            num_requests_waiting=draw(_counts),
            kv_cache_usage_ratio=draw(st.floats(allow_nan=True, allow_infinity=True)),
            max_num_seqs=draw(st.integers(0, 1024)),
            held_blocks=draw(st.integers(0, 2048)),
        )
        for index in range(draw(st.integers(1, 8)))
    ]


_hints = st.builds(
    RequestHint,
    prompt_tokens=_tokens,
    num_blocks=st.integers(0, 2048),
    first_new_block=st.integers(0, 2**63 - 1),
    sequence=_counts,
    draws=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)


def test_every_name_has_a_balancer() -> None:
    assert set(BALANCERS) == set(BalancerName)


@pytest.mark.parametrize("balancer", BALANCERS.values(), ids=list(BALANCERS))
class TestBalancer:
    @given(loads=_loads(), hint=_hints)
    def test_chooses_one_of_those_given_and_the_same_again(
        self, balancer: Balancer, loads: list[EndpointLoad], hint: RequestHint
    ) -> None:
        before = msgspec.json.encode([each.endpoint for each in loads])
        chosen = balancer(loads, hint)
        assert chosen in [load.endpoint for load in loads]
        assert balancer(tuple(loads), hint) is chosen
        assert msgspec.json.encode([each.endpoint for each in loads]) == before

    @given(count=st.integers(1, 8), draws=st.lists(st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)), max_size=64))
    def test_requests_that_stay_are_spread_over_all(
        self, balancer: Balancer, count: int, draws: list[tuple[float, float]]
    ) -> None:
        """Short prompts that nobody holds: nobody is left out while another has more than a few."""
        in_flight = [0] * count
        for sequence, draw in enumerate(draws):
            loads = idle_endpoints(in_flight)
            hint = RequestHint(prompt_tokens=20, first_new_block=sequence + 1, sequence=sequence, draws=draw)
            in_flight[loads_index(loads, balancer(loads, hint))] += 1
        is_random = balancer is BALANCERS[BalancerName.POWER_OF_TWO]
        assert is_random or max(in_flight) - min(in_flight) <= 2


def idle_endpoints(in_flight: Sequence[int]) -> list[EndpointLoad]:
    return [
        EndpointLoad(
            endpoint=Endpoint(replica=f"chat-v1-{index}", address=f"127.0.0.1:{9000 + index}", revision="v1"),
            in_flight=requests,
            pending_prompt_tokens=20 * requests,
        )
        for index, requests in enumerate(in_flight)
    ]


def loads_index(loads: Sequence[EndpointLoad], endpoint: Endpoint) -> int:
    return [load.endpoint for load in loads].index(endpoint)
