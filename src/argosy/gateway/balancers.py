"""Which replica gets a request: pure functions of what is known of each (`EndpointLoad`) and of the request.

    round_robin       each in turn, whatever they do
    least_loaded      the fewest requests open, then the fewest prompt tokens waiting
    power_of_two      the less loaded of two drawn at random: nearly as even, and gateways do not all follow one report
    prefix_affinity   where the first token comes soonest, counting what the replica need not compute again

`prefix_affinity` is sticky until saturated. It reckons in prompt tokens, the unit in which a replica's work comes:

    cost = tokens waiting there + STICKINESS × tokens of this prompt it does not hold + REQUEST_TOKENS × requests there

The holder of a conversation wins as long as what it saves outweighs what waits in front of it; then the request spills
over, and whoever takes it holds the conversation, too. STICKINESS is far above 1, because to compute a prefix again
costs more than its own time: everybody behind it waits, and it evicts another prefix that must be computed again.
A few common blocks (everybody's system prompt, less than SMALL_SHARE of this prompt) count for nothing, or they would
draw every conversation to one replica. Replicas within SMALL_SHARE of the prompt of the cheapest count as equal: the
least loaded of them is taken, and while nobody is busy the hash of the first block that nobody holds decides. So new
prefixes spread evenly, and the same one comes to the same replica also through another gateway that has not heard of
it yet.

However much it holds, a replica that is not nearly idle (a small part of its batch) takes no more than BALANCE × the
mean of all, and no more than LEAST_RATIO × (1 + the least loaded one's) requests: a prefix that everybody asks for
spreads to as many replicas as it takes. The constants: docs/balancing.md shows what they are worth.

Source: Mirrokni et al., "Consistent hashing with bounded loads" (2018); the Gateway API's prefix-affinity filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

from argosy.core.inference_service import BalancerName
from argosy.core.routing import Balancer, Endpoint, EndpointLoad, RequestHint

STICKINESS = 8.0
REQUEST_TOKENS = 32
SMALL_SHARE = 0.125
BALANCE = 2.0
LEAST_RATIO = 4
FREE_RATIO = 0.125  # Of its batch: a replica with so few requests counts as idle,
FREE_REQUESTS = 4  # and so does one with so few.
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
    limit = min(costs) + SMALL_SHARE * hint.prompt_tokens
    equals = [load for load, cost in zip(candidates, costs, strict=True) if cost <= limit]
    if len(equals) == 1:
        return equals[0].endpoint
    key = hint.first_new_block or hint.sequence
    return min(equals, key=lambda load: (*_load_rank(load), _draw(key, load.endpoint.replica))).endpoint


def requests(load: EndpointLoad) -> int:
    """Requests at an endpoint: ours for certain, everybody's as last reported."""
    return max(load.in_flight, load.num_requests_running + load.num_requests_waiting)


def most_requests(loads: Sequence[EndpointLoad]) -> float:
    """From how many requests on an endpoint gets none for affinity's sake. The least loaded one always has fewer."""
    counts = [requests(load) for load in loads]
    free = max(FREE_REQUESTS, FREE_RATIO * min(load.max_num_seqs for load in loads))
    mean = (sum(counts) + 1) / len(counts)
    return max(free, min(BALANCE * mean, LEAST_RATIO * (min(counts) + 1)))


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
    held = load.held_blocks / hint.num_blocks if hint.num_blocks else 0.0
    missing = 1.0 - held if held >= SMALL_SHARE else 1.0
    here = requests(load)
    cost = load.pending_prompt_tokens + STICKINESS * missing * hint.prompt_tokens + REQUEST_TOKENS * here
    in_line = here + 1 - load.max_num_seqs if load.max_num_seqs else load.num_requests_waiting
    return cost + max(in_line, 0) * hint.prompt_tokens


def _is_out_of_memory(load: EndpointLoad) -> bool:
    return load.num_requests_waiting > 0 and load.kv_cache_usage_ratio > _FULL_KV_CACHE_RATIO


def _draw(key: int, replica: str) -> bytes:
    """A number that depends on the replica and the prompt only: the smallest of the replicas' wins (rendezvous)."""
    return blake2b(replica.encode(), digest_size=8, key=key.to_bytes(8, "little")).digest()
