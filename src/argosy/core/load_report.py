"""What replicas and gateways report of themselves, in JSON, several times a second. Counts only ever grow.

A gateway asks each replica (GET /replica/state) and tells its control plane (POST /v1/gateways/{name}/report), at once
when a first request waits for a replica. So the control plane needs to find nobody.

`epoch` names one run of a process: when it changes, counts began again at zero and differences mean nothing.
"""

from __future__ import annotations

import msgspec

REPLICA_REPORT_PATH = "/replica/state"
GATEWAY_REPORT_PATH = "/v1/gateways/{name}/report"

# Upper bounds of the latency buckets in the reports, in seconds; one more bucket holds what is above the last.
LATENCY_BOUNDS_SECONDS = (
    0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8,
    1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0,
)  # fmt: skip


class PrefixChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica's prefix cache took in and gave up since `since`, the sequence the asker named.

    sequence: name it in the next question. is_whole: `since` is unknown here, so `added` is all there is.
    """

    sequence: int = 0
    is_whole: bool = True
    added: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """GET /replica/state?since=N. phase: starting, ready, draining or dead. start_seconds: the parts of its start.

    generation_tokens: generated since the process began.
    """

    epoch: str
    phase: str
    in_flight: int = 0
    num_requests_running: int = 0
    num_requests_waiting: int = 0
    kv_cache_usage_ratio: float = 0.0
    max_num_seqs: int = 0
    kv_cache_tokens: int = 0
    generation_tokens: int = 0
    start_seconds: dict[str, float] = {}
    prefix: PrefixChanges = PrefixChanges()


class RevisionTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway saw of one revision. completions: requests that ended, well or not; errors, slo_good: of these.

    ttft_counts, tpot_counts: answers per bucket of LATENCY_BOUNDS_SECONDS.

    started: requests that had a first byte; queue_seconds: sum of their time until then, less the service time that
    the same prompt takes on an idle replica as far as it is known. is_shadow: copies only. ttft_seconds, tpot_seconds:
    sums over the answers in the buckets.
    """

    revision: str
    is_shadow: bool = False
    requests: int = 0
    errors: int = 0
    completions: int = 0
    slo_good: int = 0
    in_flight: int = 0
    started: int = 0
    queue_seconds: float = 0.0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    ttft_counts: tuple[int, ...] = ()
    tpot_counts: tuple[int, ...] = ()
    ttft_seconds: float = 0.0
    tpot_seconds: float = 0.0


class ReplicaLoad(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as a gateway knows it. is_ejected: kept out of rotation for failing."""

    replica: str
    revision: str
    in_flight: int = 0
    is_ejected: bool = False
    reported_seconds_ago: float | None = None
    report: ReplicaReport | None = None


class ServiceTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway saw of one service. held: requests that wait for a replica now. cache_hits: from memory.

    ejections: how often a replica was taken out of rotation.
    """

    service: str
    arrivals: int = 0
    held: int = 0
    retries: int = 0
    cache_hits: int = 0
    ejections: int = 0
    revisions: tuple[RevisionTraffic, ...] = ()
    replicas: tuple[ReplicaLoad, ...] = ()


class GatewayReport(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway's whole state. routes_epoch, routes_version: the route table it follows.

    routes_stale_seconds: since it heard the control plane no more; 0 while it does.
    """

    epoch: str
    routes_epoch: str = ""
    routes_version: int = 0
    routes_stale_seconds: float = 0.0
    services: tuple[ServiceTraffic, ...] = ()
