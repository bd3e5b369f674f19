"""What the control plane tells a gateway (routes), and what a balancer decides from (loads and hints)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from argosy.core.inference_service import GatewayPolicy
from argosy.core.scaling import Slo


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The address (`host:port`) of a ready replica of a revision (`v1`)."""

    replica: str
    address: str
    revision: str


class RevisionRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A revision's share of the traffic, in percent, and where it is served."""

    revision: str
    weight: int
    endpoints: tuple[Endpoint, ...] = ()


class ServiceRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One service as a gateway needs it.

    names: what clients may write as `model`; the first is the service's own, the others its adapters.
    revisions: all that run, those without weight included (for shadows and sticky callers on their way out).
    failure: why no replica will come, as a sentence, when there is none and starting one has failed: requests are then
    refused with it instead of held (F-14); empty while there is one or one is on its way.
    """

    service: str
    names: tuple[str, ...]
    revisions: tuple[RevisionRoute, ...] = ()
    policy: GatewayPolicy = GatewayPolicy()
    slo: Slo = Slo()
    created: int = 0
    failure: str = ""


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a gateway routes. version grows with each change; an epoch is one run of a control plane."""

    epoch: str = ""
    version: int = 0
    services: tuple[ServiceRoute, ...] = ()


class EndpointLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How busy an endpoint is, as far as the gateway knows.

    in_flight: requests this gateway has open there. pending_prompt_tokens: prompt tokens of those without a first
    token yet, less what the replica's cache holds. num_requests_running, num_requests_waiting, kv_cache_usage_ratio,
    max_num_seqs: as the replica last reported them; max_num_seqs 0 = unknown.
    held_blocks: how many of the request's leading prefix blocks the replica holds.
    """

    endpoint: Endpoint
    in_flight: int = 0
    pending_prompt_tokens: int = 0
    num_requests_running: int = 0
    num_requests_waiting: int = 0
    kv_cache_usage_ratio: float = 0.0
    max_num_seqs: int = 0
    held_blocks: int = 0


class RequestHint(msgspec.Struct, frozen=True, kw_only=True):
    """What a balancer may know of a request, randomness included, so that it is a pure function.

    prompt_tokens: an estimate. num_blocks: prefix blocks of the prompt. first_new_block: the hash of the first one that
    no endpoint holds; 0 = there is none. sequence: counts the requests of a service.
    draws: two independent draws from [0, 1).
    """

    prompt_tokens: int = 0
    num_blocks: int = 0
    first_new_block: int = 0
    sequence: int = 0
    draws: tuple[float, float] = (0.0, 0.5)


Balancer = Callable[[Sequence[EndpointLoad], RequestHint], Endpoint]
"""Chooses among at least one endpoint. Pure: the same loads and hint, the same endpoint."""
