"""A request's way to a replica: choose, ask, and if that fails before the client has a byte, choose another.

    choose revision (traffic_split) ─▶ choose replica (balancers) ─▶ ask ─▶ deliver
         ▲            no replica: wait in line (hold)                 │
         └──────────── nothing was sent to the client yet ────────────┘

What may be tried again, and where:

- No connection, or "I take no requests" (503 with `Connection: close`): no replica has begun the request, so it goes
  on looking, and waits in line if there is nobody else. This costs no budget: it is no second try.
- The connection broke, went silent, or brought no answer: the replica may have died of this request. Once more, on
  another replica, if the budget has a token: a request that kills replicas kills two, not all.
- 429, its queue is full: on at most two others, if the budget has tokens; then the client gets the 429.
- Anything else is the answer. After the first byte to the client nothing is tried again: an error event ends it.

The same code runs in the simulator: time comes from `clock`, chance from `draw`, replicas from a `Transport`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from argosy.core.errors import Unavailable
from argosy.core.inference_service import BalancerName
from argosy.core.prefix import BLOCK_BYTES
from argosy.core.routing import RequestHint, RevisionRoute
from argosy.gateway.attempt import Attempt
from argosy.gateway.balancers import BALANCERS
from argosy.gateway.call import Call
from argosy.gateway.endpoints import EndpointState
from argosy.gateway.hold import RETRY_AFTER_SECONDS
from argosy.gateway.outlier import DEFAULT_POLICY, after_choice
from argosy.gateway.retry_budget import after_request, after_retry
from argosy.gateway.services import no_replica
from argosy.gateway.traffic_split import choose_revision
from argosy.gateway.transport import Answer, FailureKind, ReplicaFailure, Transport
from argosy.observe.tracing import current_span

MAX_OVERLOADED_RETRIES = 2
_BLOCK_TOKENS = BLOCK_BYTES // 4


class Delivery(Protocol):
    """Who takes the answer."""

    @property
    def has_started(self) -> bool:
        """Whether its client has a byte of it."""
        ...

    @property
    def is_late(self) -> bool:
        """Whether the deadline ends it now."""
        ...

    def asked(self, attempt: Attempt) -> None:
        """A replica is being asked."""
        ...

    async def deliver(self, answer: Answer, attempt: Attempt) -> None:
        """Pass the answer on to its end, and give the attempt its verdict. Raises: ReplicaFailure."""
        ...


class _Search:
    """What one request has tried."""

    def __init__(self) -> None:
        self.tried: set[str] = set()
        self.num_overloaded = 0
        self.has_failed = False
        self.held_since: float | None = None


class Dispatcher:
    """Places calls. clock: monotonic seconds. draw: from [0, 1)."""

    def __init__(self, transport: Transport, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        self._transport = transport
        self._clock = clock
        self._draw = draw

    async def run(self, call: Call, delivery: Delivery) -> None:
        """Have the call answered, once.

        Cancels: the replica's connection is closed. Raises: ReplicaFailure, Unavailable, Overloaded.
        """
        service, search = call.service, _Search()
        service.arrivals += 1
        service.budget = after_request(service.budget, service.route.policy.retry_ratio, self._clock())
        attempt: Attempt | None = await self._begin(call, search)
        while attempt is not None:
            attempt = await self._attempt(call, attempt, delivery, search)
            if attempt is not None:
                current_span.get().event("retry", replica=attempt.state.endpoint.replica)

    async def ask(self, attempt: Attempt) -> Answer:
        """Ask the attempt's replica. Cancels: the connection is closed. Raises: ReplicaFailure."""
        return await self._transport.ask(attempt.state.endpoint.address, attempt.call.question())

    def shadow_attempt(self, call: Call, revision: str) -> Attempt | None:
        """An attempt for a copy, on one replica of a revision; None if none takes requests. It looks for no other."""
        now = self._clock()
        usable = call.service.usable(revision, now)
        return self._opened(call, self._balance(call, usable, now), now, is_shadow=True) if usable else None

    async def _attempt(self, call: Call, attempt: Attempt, delivery: Delivery, search: _Search) -> Attempt | None:
        """Ask one replica; the next attempt if this one came to nothing, None if the call is answered."""
        try:
            delivery.asked(attempt)
            answer = await self.ask(attempt)
            try:
                check_refusal(answer)
                if answer.status == 429 and (another := self._instead_of_overloaded(call, attempt, search)):
                    return another
                await delivery.deliver(answer, attempt)
                return None
            finally:
                answer.close()
        except ReplicaFailure as error:
            attempt.failed(error, self._clock())
            if delivery.has_started:
                raise
            failure = error
        finally:
            attempt.close(self._clock(), is_late=delivery.is_late)
        return await self._instead_of_failed(call, attempt, failure, search)

    async def _instead_of_failed(
        self, call: Call, attempt: Attempt, failure: ReplicaFailure, search: _Search
    ) -> Attempt:
        """Raises: the failure, if nobody else may be asked."""
        replica = attempt.state.endpoint.replica
        current_span.get().event("replica_failed", replica=replica, reason=failure.kind.value)
        if not failure.may_have_started:
            call.service.retries += 1
            return await self._begin(call, search)
        search.tried.add(replica)
        another = None if search.has_failed else self._retry(call, search)
        search.has_failed = True
        if another is None:
            raise failure
        return another

    def _instead_of_overloaded(self, call: Call, attempt: Attempt, search: _Search) -> Attempt | None:
        search.tried.add(attempt.state.endpoint.replica)
        search.num_overloaded += 1
        another = self._retry(call, search) if search.num_overloaded <= MAX_OVERLOADED_RETRIES else None
        if another is not None:
            current_span.get().event("replica_overloaded", replica=attempt.state.endpoint.replica)
            attempt.overloaded(self._clock(), is_final=False)
        return another

    def _retry(self, call: Call, search: _Search) -> Attempt | None:
        """A second try, if there is somebody to try and the budget allows it."""
        service, now = call.service, self._clock()
        left = after_retry(service.budget, service.route.policy.retry_ratio, now)
        state = self._choose(call, search, now) if left is not None else None
        if left is None or state is None:
            return None
        service.budget = left
        service.retries += 1
        return self._opened(call, state, now)

    async def _begin(self, call: Call, search: _Search) -> Attempt:
        """The next attempt, after a wait in line if need be. Raises: Unavailable, Overloaded."""
        service = call.service
        while True:
            now = self._clock()
            is_next = not service.line or search.held_since is not None or bool(call.revision)
            state = self._choose(call, search, now) if is_next else None
            if state is not None:
                return self._opened(call, state, now)
            if call.revision:
                raise Unavailable(
                    f"revision {call.revision} of {service.name!r} has no replica that takes requests now",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            if service.route.failure and not service.endpoints:
                raise no_replica(service.route)
            waited = 0.0 if search.held_since is None else now - search.held_since
            search.held_since = now - waited
            await service.line.wait(service.route.policy, waited)

    def _choose(self, call: Call, search: _Search, now: float) -> EndpointState | None:
        """The replica for a call: first its revision, then, among that one's, the balancer's choice."""
        service = call.service
        wanted: list[RevisionRoute] = [
            each for each in service.route.revisions if each.endpoints and call.revision in ("", each.revision)
        ]
        while wanted:
            revision = wanted[0] if call.revision else choose_revision(wanted, call.draw, call.sticky)
            if revision is None:
                return None
            usable = [
                state for state in service.usable(revision.revision, now) if state.endpoint.replica not in search.tried
            ]
            if usable:
                return self._balance(call, usable, now)
            wanted.remove(revision)
        return None

    def _balance(self, call: Call, usable: list[EndpointState], now: float) -> EndpointState:
        service, blocks = call.service, call.prefix.blocks
        if len(usable) == 1:
            return usable[0]
        balancer = service.route.policy.balancer
        if balancer is BalancerName.PREFIX_AFFINITY:
            holdings = service.prefixes.lookup(blocks, now)
            loads = [state.load(holdings.held.get(state.endpoint.replica, 0)) for state in usable]
            first_new_block = holdings.first_new_block
        else:
            loads, first_new_block = [state.load(0) for state in usable], 0
        hint = RequestHint(
            prompt_tokens=call.prompt_tokens,
            num_blocks=len(blocks),
            first_new_block=first_new_block,
            sequence=service.arrivals,
            draws=(self._draw(), self._draw()),
        )
        return service.endpoints[BALANCERS[balancer](loads, hint).replica]

    def _opened(self, call: Call, state: EndpointState, now: float, *, is_shadow: bool = False) -> Attempt:
        service, replica = call.service, state.endpoint.replica
        state.health = after_choice(state.health, DEFAULT_POLICY, now)
        held = service.prefixes.held_blocks(replica, call.prefix.blocks)
        service.prefixes.mark(replica, call.prefix.blocks, now)
        counters = service.counters(state.endpoint.revision, is_shadow=is_shadow)
        return Attempt(call, state, counters, held * _BLOCK_TOKENS)


def check_refusal(answer: Answer) -> None:
    """Whether a replica means what it says. Raises: ReplicaFailure if it does not take requests, or not ours."""
    if answer.status == 503:
        closes = any(name == b"connection" and value.lower() == b"close" for name, value in answer.headers)
        kind = FailureKind.REFUSED if closes else FailureKind.RESET
        raise ReplicaFailure(kind, "the replica is shutting down, or its engine is dead")
    if answer.status in (401, 403):
        raise ReplicaFailure(FailureKind.INVALID, "the replica does not know the gateway's key")
