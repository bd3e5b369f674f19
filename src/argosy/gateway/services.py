"""The services a gateway routes to: the last route table, and what the gateway itself knows beside it.

Tables come and go; what was learnt of a replica (its load, its health) stays as long as the replica does, and counts
stay as long as the gateway. When the control plane is away, the last table stays (design.md, section 6).
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec

from argosy.core.errors import InvalidRequest, ModelNotFound, Unavailable
from argosy.core.load_report import ServiceTraffic
from argosy.core.routing import RouteTable, ServiceRoute
from argosy.gateway.counters import RevisionCounters
from argosy.gateway.endpoints import EndpointState
from argosy.gateway.hold import RETRY_AFTER_SECONDS, HoldLine
from argosy.gateway.outlier import DEFAULT_POLICY, may_eject_one_more
from argosy.gateway.prefix_index import PrefixIndex
from argosy.gateway.response_cache import ResponseCache
from argosy.gateway.retry_budget import RetryBudget

_MAX_LISTED = 10
_MAX_GONE = 256
# Revisions that run no more whose counts a report still carries; the control plane keeps fewer to go back to.
_MAX_GONE_REVISIONS = 32


class ServiceState:
    """One service: its route, its replicas, its line, its counts."""

    def __init__(self, route: ServiceRoute, wake: Callable[[], None]) -> None:
        self.name = route.service
        self.route = route
        self.endpoints: dict[str, EndpointState] = {}
        self.line = HoldLine(route.service, wake)
        self.budget = RetryBudget()
        self.cache: ResponseCache | None = None
        self.prefixes = PrefixIndex()
        self.arrivals = self.retries = self.cache_hits = self.ejections = 0
        self._counters: dict[tuple[str, bool], RevisionCounters] = {}
        self.update(route)

    def update(self, route: ServiceRoute) -> None:
        """Follow a new route: replicas that stay keep what is known of them."""
        known = self.endpoints
        policy = route.policy.cache
        is_another = route.created != self.route.created  # of the same name: its revisions' names begin anew, too
        if policy is None or self.cache is None or policy != self.route.policy.cache or is_another:
            self.cache = None if policy is None else ResponseCache(policy)
        self.route = route
        self.endpoints = {}
        for revision in route.revisions:
            for endpoint in revision.endpoints:
                state = known.get(endpoint.replica)
                is_same = state is not None and state.endpoint == endpoint
                self.endpoints[endpoint.replica] = state if state and is_same else EndpointState(endpoint)
        self.prefixes.keep_only(self.endpoints)
        self._forget_counters()

    def usable(self, revision: str, now: float) -> list[EndpointState]:
        """The replicas of a revision that may get a request."""
        return [
            state for state in self.endpoints.values() if state.endpoint.revision == revision and state.is_usable(now)
        ]

    def counters(self, revision: str, *, is_shadow: bool = False) -> RevisionCounters:
        """The counts of a revision, begun on first use."""
        key = (revision, is_shadow)
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = RevisionCounters(revision, is_shadow=is_shadow)
        return found

    def may_eject(self, state: EndpointState) -> bool:
        """Whether this replica's revision can do without it, too."""
        peers = self.peers(state)
        return may_eject_one_more(len(peers) + 1, sum(peer.is_ejected for peer in peers), DEFAULT_POLICY)

    def peers(self, state: EndpointState) -> list[EndpointState]:
        """The other replicas of its revision."""
        revision = state.endpoint.revision
        return [peer for peer in self.endpoints.values() if peer is not state and peer.endpoint.revision == revision]

    def admit(self, now: float) -> None:
        """Let those in line forward as far as there is room; send them away if there is no hope."""
        if not self.line:
            return
        weighted = {each.revision for each in self.route.revisions if each.weight > 0}
        usable = [
            state for state in self.endpoints.values() if state.endpoint.revision in weighted and state.is_usable(now)
        ]
        if usable:
            self.line.admit(sum(max(0, state.room) for state in usable))
        elif self.route.failure and not self.endpoints:
            self.line.dismiss(no_replica(self.route))

    def report(self, now: float) -> ServiceTraffic:
        """What the control plane is told."""
        return ServiceTraffic(
            service=self.name,
            arrivals=self.arrivals,
            held=len(self.line),
            retries=self.retries,
            cache_hits=self.cache_hits,
            ejections=self.ejections,
            revisions=tuple(counters.report() for counters in self._counters.values()),
            replicas=tuple(state.to_replica_load(now) for state in self.endpoints.values()),
        )

    def _forget_counters(self) -> None:
        """Of revisions that are long gone: a service that is deployed anew every hour must not grow for ever."""
        running = {each.revision for each in self.route.revisions}
        gone = [
            key
            for key, counters in self._counters.items()
            if counters.revision not in running and not counters.in_flight
        ]
        for key in gone[: max(0, len(gone) - _MAX_GONE_REVISIONS)]:
            del self._counters[key]


class Services:
    """All services by every name a client may write.

    table: the one that is followed. stale_since: when the control plane went away; None while it is there.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        """wake: called when a request is held and nobody was before."""
        self._wake = wake
        self._services: dict[str, ServiceState] = {}
        self._names: dict[str, ServiceState] = {}
        self._gone: OrderedDict[str, ServiceState] = OrderedDict()
        self.table = RouteTable()
        self.stale_since: float | None = None

    def __iter__(self) -> Iterator[ServiceState]:
        return iter([*self._services.values()])

    def update(self, table: RouteTable, now: float) -> bool:
        """Follow a table; False if it is no newer than the one we follow (F-12)."""
        if table.epoch == self.table.epoch and table.version <= self.table.version and self._services:
            return False
        self.table = table
        known = self._services
        self._services = {}
        for route in table.services:
            service = known.pop(route.service, None) or self._gone.pop(route.service, None)
            if service is None:
                service = ServiceState(route, self._wake)
            else:
                service.update(route)
            self._services[route.service] = service
        self._names = {**self._services}  # a service's own name is never another's adapter
        for service in self._services.values():
            for name in service.route.names:
                self._names.setdefault(name, service)
        for gone in known.values():
            self._leave(gone)
        self.tick(now)
        return True

    def tick(self, now: float) -> None:
        """Look at every line: time alone brings ejected replicas back."""
        for service in self._services.values():
            service.admit(now)

    def find(self, name: str) -> ServiceState:
        """The service that has this name or adapter; without a name the only one there is.

        Raises: ModelNotFound, InvalidRequest.
        """
        service = self._names.get(name)
        if service is not None:
            return service
        if name:
            raise ModelNotFound(self._unknown(name), param="model")
        if len(self._services) != 1:
            known = ", ".join(sorted(self._names)[:_MAX_LISTED]) or "none"
            raise InvalidRequest(
                f"model is missing, and this gateway has {len(self._services)} services: name one of {known}",
                param="model",
            )
        return next(iter(self._services.values()))

    def addresses(self) -> frozenset[str]:
        """Where replicas are."""
        return frozenset(state.endpoint.address for service in self for state in service.endpoints.values())

    def _leave(self, gone: ServiceState) -> None:
        """A service was deleted. Should its name come back, its counts go on: in a report they only ever grow."""
        gone.update(msgspec.structs.replace(gone.route, revisions=()))
        gone.cache = None
        gone.line.dismiss(ModelNotFound(f"the service {gone.name!r} was deleted", param="model"))
        self._gone[gone.name] = gone
        if len(self._gone) > _MAX_GONE:
            self._gone.popitem(last=False)

    def _unknown(self, name: str) -> str:
        shown = name if len(name) <= 96 else name[:93] + "..."
        near = difflib.get_close_matches(name[:96], self._names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(self._names)[:_MAX_LISTED]) or "no model"
        return f"The model `{shown}` does not exist.{hint} This gateway has: {known}."


def no_replica(route: ServiceRoute) -> Unavailable:
    """Why a service cannot answer, when nothing is on its way."""
    return Unavailable(
        f"{route.service!r} has no replica: {route.failure}: ask `argosy why {route.service}`",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
