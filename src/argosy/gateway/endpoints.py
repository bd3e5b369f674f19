"""One replica as the gateway knows it: what it has open there, what the replica says of itself, how it has behaved."""

from __future__ import annotations

import msgspec

from argosy.core.load_report import PrefixChanges, ReplicaLoad, ReplicaReport
from argosy.core.routing import Endpoint, EndpointLoad
from argosy.gateway.outlier import EndpointHealth, HealthPhase, Pace, takes_requests

# Requests that a replica takes at once when it does not say how many.
DEFAULT_MAX_NUM_SEQS = 16
_READY = "ready"


class EndpointState:
    """A replica of the route table, over its life. Times are the gateway's clock.

    is_reachable: whether it took the last connection, or answered the last question about its state.
    is_leaving: it said that it takes no requests; its next report may say otherwise.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self.pending_prompt_tokens = 0
        self.health = EndpointHealth()
        self.pace = Pace()
        self.is_reachable = True
        self.is_leaving = False
        self.report: ReplicaReport | None = None
        self.reported_at: float | None = None
        self.heard_at: float | None = None

    def is_usable(self, now: float) -> bool:
        """Whether a request may go there."""
        return self.is_reachable and not self.is_leaving and takes_requests(self.health, now)

    @property
    def is_ejected(self) -> bool:
        """Whether it is out of rotation for failing."""
        return self.health.phase is not HealthPhase.HEALTHY

    @property
    def room(self) -> int:
        """How many more requests keep it busy without a long queue: twice what it runs at once, less what it has."""
        runs = self.report.max_num_seqs if self.report is not None else 0
        return 2 * (runs or DEFAULT_MAX_NUM_SEQS) - self.in_flight

    def heard(self, report: ReplicaReport | None, now: float) -> None:
        """It answered a question about its state; None if we cannot read the answer.

        Its prefix blocks are not kept here: the index has them, and a report to the control plane must stay small.
        """
        self.is_reachable = True
        self.heard_at = now
        self.is_leaving = report is not None and report.phase != _READY
        if report is not None:
            self.report, self.reported_at = msgspec.structs.replace(report, prefix=PrefixChanges()), now

    def load(self, held_blocks: int) -> EndpointLoad:
        """What a balancer sees of it. held_blocks: of the request's beginning."""
        report = self.report
        if report is None:
            return EndpointLoad(
                endpoint=self.endpoint,
                in_flight=self.in_flight,
                pending_prompt_tokens=self.pending_prompt_tokens,
                held_blocks=held_blocks,
            )
        return EndpointLoad(
            endpoint=self.endpoint,
            in_flight=self.in_flight,
            pending_prompt_tokens=self.pending_prompt_tokens,
            num_requests_running=report.num_requests_running,
            num_requests_waiting=report.num_requests_waiting,
            kv_cache_usage_ratio=report.kv_cache_usage_ratio,
            max_num_seqs=report.max_num_seqs,
            held_blocks=held_blocks,
        )

    def to_replica_load(self, now: float) -> ReplicaLoad:
        """What the control plane is told of it."""
        return ReplicaLoad(
            replica=self.endpoint.replica,
            revision=self.endpoint.revision,
            in_flight=self.in_flight,
            is_ejected=self.is_ejected,
            reported_seconds_ago=None if self.reported_at is None else max(0.0, now - self.reported_at),
            report=self.report,
        )
