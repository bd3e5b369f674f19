"""The metrics of a gateway: what it saw of each service, revision and replica.

They are read from its reports (`core.load_report`), at the moment of a scrape, so a request pays nothing for them. The
gateway shows them itself, and the control plane shows those of every gateway, with the label `gateway`.
"""

from __future__ import annotations

from argosy.core.load_report import LATENCY_BOUNDS_SECONDS
from argosy.observe.metric import Metric, counter, gauge, histogram

_SERVICE = ("service",)
_REVISION = ("service", "revision")
_REPLICA = ("service", "revision", "replica")

GATEWAY_METRICS: tuple[Metric, ...] = (
    counter("argosy_gateway_arrivals", "requests", "Requests that named this service.", _SERVICE),
    gauge("argosy_gateway_requests_held", "requests", "Requests waiting for a replica now.", _SERVICE),
    counter("argosy_gateway_retries", "requests", "Requests sent a second time, before their first byte.", _SERVICE),
    counter("argosy_gateway_cache_hits", "requests", "Requests answered from the response cache.", _SERVICE),
    counter("argosy_gateway_ejections", "ejections", "Times a replica was taken out of rotation.", _SERVICE),
    counter("argosy_gateway_requests", "requests", "Requests a revision has answered, well or not.", _REVISION),
    counter("argosy_gateway_errors", "requests", "Of these, those that ended in an error of ours.", _REVISION),
    counter("argosy_gateway_completions", "requests", "Requests that count for the SLO.", _REVISION),
    counter("argosy_gateway_slo_good", "requests", "Of these, those that met the service's SLO.", _REVISION),
    counter("argosy_gateway_shadow_requests", "requests", "Copies a revision has answered for measurement.", _REVISION),
    counter("argosy_gateway_shadow_errors", "requests", "Of these, those that ended in an error.", _REVISION),
    gauge("argosy_gateway_requests_in_flight", "requests", "Requests open at a revision now.", _REVISION),
    counter("argosy_gateway_prompt_tokens", "tokens", "Prompt tokens, as replicas counted them.", _REVISION),
    counter("argosy_gateway_generation_tokens", "tokens", "Generated tokens, as replicas counted them.", _REVISION),
    counter(
        "argosy_gateway_queue_seconds",
        "seconds",
        "Time until the first byte beyond what the same prompt takes on an idle replica, summed.",
        _REVISION,
    ),
    histogram(
        "argosy_gateway_ttft_seconds",
        "seconds",
        "Arrival at the gateway to the first byte of a stream.",
        LATENCY_BOUNDS_SECONDS,
        _REVISION,
    ),
    histogram(
        "argosy_gateway_tpot_seconds",
        "seconds",
        "Mean gap between the tokens of a stream.",
        LATENCY_BOUNDS_SECONDS,
        _REVISION,
    ),
    gauge("argosy_gateway_replica_requests_in_flight", "requests", "Requests open at a replica now.", _REPLICA),
    gauge("argosy_gateway_replica_ejected", "0 or 1", "Whether a replica is out of rotation for failing.", _REPLICA),
    gauge("argosy_gateway_routes_version", "versions", "The route table this gateway follows.", ()),
    gauge(
        "argosy_gateway_routes_stale_seconds",
        "seconds",
        "Since this gateway lost the control plane and serves by its last route table; 0 while it follows.",
        (),
    ),
    counter("argosy_gateway_key_requests", "requests", "Requests of a key, by its name.", ("key", "service")),
    counter(
        "argosy_gateway_key_tokens",
        "tokens",
        "Tokens a key has used, by its name.",
        ("key", "service", "kind"),
    ),
)  # fmt: skip
