"""Which replica gets a request: pure functions of what is known of each (`EndpointLoad`) and of the request.

    round_robin       each in turn, whatever they do
    least_loaded      the fewest requests open, then the fewest prompt tokens waiting
    power_of_two      the less loaded of two drawn at random: nearly as even, and gateways do not all follow one report
    prefix_affinity   where the first token comes soonest, counting what the replica need not compute again

`prefix_affinity` is sticky until saturated. It reckons in prompt tokens, the unit in which a replica's work comes:

    cost = tokens waiting there + STICKINESS × tokens of this prompt it does not hold + REQUEST_TOKENS × requests there

The holder of a conversation wins as long as what it saves outweighs what waits in front of it; a busy holder loses to
an idle replica, which holds the conversation from then on. STICKINESS is above 1, because to compute a prefix twice
costs the others, too: their time, and the room of what it evicts. Replicas within SPREAD_RATIO of the prompt of the
cheapest count as equal, so a few common blocks (everybody's system prompt) do not draw every conversation to one
replica: among equals the hash of the first block that nobody holds decides, so that new prefixes spread evenly and
the same prefix comes to the same replica, also through another gateway that has not heard of it.
And no replica takes more than its share (BALANCE × mean + 1 requests), however much it holds: bounded loads.

Source: Mirrokni et al., "Consistent hashing with bounded loads" (2018); the Gateway API's prefix-affinity filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

from argosy.core.inference_service import BalancerName
from argosy.core.routing import Balancer, Endpoint, EndpointLoad, RequestHint

STICKINESS = 2.0
REQUEST_TOKENS = 32
SPREAD_RATIO = 0.125
BALANCE = 1.5
FREE_REQUESTS = 4  # A replica may always have so many: with few requests about, a share is no sign of load.
_FULL_KV_CACHE_RATIO = 0.95


def round_robin(loads: Sequence[EndpointLoad], hint: RequestHint) -> Endpoint:
    """Each in turn."""
    return loads[hint.sequence % len(loads)].endpoint


def least_loaded(loads: Sequence[EndpointLoad], hint: RequestHint) -> Endpoint:
    """The one with the fewest requests, then the fewest waiting prompt tokens; equals take turns."""
    count = len(loads)
    ranks = [(*_load_rank(load), (index - hint.sequence) % count) for index, load in enumerate(loads)]
    return loads[ranks.index(min(ranks))].endpoint


def power_of_two(loads: Sequence[EndpointLoad], hint: RequestHint) -> Endpoint:
    """The less loaded of two different ones, drawn."""
    count = len(loads)
    first = min(int(hint.draws[0] * count), count - 1)
    if count == 1:
        return loads[0].endpoint
    second = (first + 1 + min(int(hint.draws[1] * (count - 1)), count - 2)) % count
    return min(loads[first], loads[second], key=_load_rank).endpoint


def prefix_affinity(loads: Sequence[EndpointLoad], hint: RequestHint) -> Endpoint:
    """The one that can answer soonest, sticky to who holds the prompt's beginning, within its share of the load."""
    ceiling = most_requests(loads)
    below = [load for load in loads if requests(load) < ceiling]
    candidates = [load for load in below if not _is_out_of_memory(load)] or below
    costs = [_cost(load, hint) for load in candidates]
    limit = min(costs) + SPREAD_RATIO * hint.prompt_tokens
    equals = [load for load, cost in zip(candidates, costs, strict=True) if cost <= limit]
    if len(equals) == 1:
        return equals[0].endpoint
    key = hint.first_new_block or hint.sequence
    return min(equals, key=lambda load: _draw(key, load.endpoint.replica)).endpoint


def requests(load: EndpointLoad) -> int:
    """Requests at an endpoint: ours for certain, everybody's as last reported."""
    return max(load.in_flight, load.num_requests_running + load.num_requests_waiting)


def most_requests(loads: Sequence[EndpointLoad]) -> float:
    """Up to how many requests an endpoint may have before affinity passes it over; the mean counts the new one."""
    mean = (sum(map(requests, loads)) + 1) / len(loads)
    return max(FREE_REQUESTS, BALANCE * mean)


BALANCERS: Mapping[BalancerName, Balancer] = {
    BalancerName.PREFIX_AFFINITY: prefix_affinity,
    BalancerName.LEAST_LOADED: least_loaded,
    BalancerName.POWER_OF_TWO: power_of_two,
    BalancerName.ROUND_ROBIN: round_robin,
}


def _load_rank(load: EndpointLoad) -> tuple[int, int]:
    return requests(load), load.pending_prompt_tokens


def _cost(load: EndpointLoad, hint: RequestHint) -> float:
    """What it takes until the first token, in prompt tokens; a full batch counts as a whole prompt for each in line."""
    missing = 1.0 - load.held_blocks / hint.num_blocks if hint.num_blocks else 1.0
    here = requests(load)
    cost = load.pending_prompt_tokens + STICKINESS * missing * hint.prompt_tokens + REQUEST_TOKENS * here
    in_line = here + 1 - load.max_num_seqs if load.max_num_seqs else load.num_requests_waiting
    return cost + max(in_line, 0) * hint.prompt_tokens


def _is_out_of_memory(load: EndpointLoad) -> bool:
    return load.num_requests_waiting > 0 and load.kv_cache_usage_ratio > _FULL_KV_CACHE_RATIO


def _draw(key: int, replica: str) -> bytes:
    """A number that depends on the replica and the prompt only: the smallest of the replicas' wins (rendezvous)."""
    return blake2b(replica.encode(), digest_size=8, key=key.to_bytes(8, "little")).digest()
