"""One request on one replica: open from the moment the replica is chosen until its answer has ended, counted once."""

from __future__ import annotations

from argosy.gateway import outlier
from argosy.gateway.call import Call
from argosy.gateway.counters import RevisionCounters
from argosy.gateway.endpoints import EndpointState
from argosy.gateway.outlier import DEFAULT_POLICY, EndpointHealth, Pace
from argosy.gateway.transport import FailureKind, ReplicaFailure
from argosy.gateway.usage import Usage
from argosy.observe.tracing import current_span


class Attempt:
    """Counts itself among the replica's requests until `close`; exactly one of the verdicts is called before.

    No verdict means that the client left: that says nothing about the replica.
    """

    def __init__(self, call: Call, state: EndpointState, counters: RevisionCounters, held_tokens: int) -> None:
        """held_tokens: of the prompt, those that the replica need not compute. Time: of the choice is not needed."""
        self.call = call
        self.state = state
        self.counters = counters
        self.first_at: float | None = None
        self.usage: Usage | None = None
        self.num_events = 0
        self.has_verdict = False
        self._was_idle = state.in_flight == 0
        self._pending_tokens = max(0, call.prompt_tokens - held_tokens)
        state.in_flight += 1
        state.pending_prompt_tokens += self._pending_tokens
        counters.in_flight += 1

    def first_byte(self, now: float) -> None:
        """The first token of a stream came: the prompt is computed."""
        self.first_at = now
        self._prompt_done()
        current_span.get().event("first_token")
        self.counters.first_byte(now - self.call.arrived_at, self.call.prefix.prompt_bytes, was_idle=self._was_idle)

    def streamed(self, last_at: float, now: float) -> None:
        """A stream ended as it should. last_at: when its last piece came."""
        self._count()
        first_at = self.first_at if self.first_at is not None else last_at
        tokens = self.usage.completion_tokens if self.usage else 0
        tpot = (last_at - first_at) / (tokens - 1) if tokens > 1 else None
        self.counters.finished(first_at - self.call.arrived_at, tpot, self.call.service.route.slo)
        self._healthy(now)
        if tpot is not None:
            self._paced(tpot, now)

    def answered(self, now: float) -> None:
        """A whole, good answer came."""
        self._count()
        self._healthy(now)
        tokens = self.usage.completion_tokens if self.usage else 0
        self.counters.finished_whole(now - self.call.arrived_at, tokens, self.call.service.route.slo)

    def refused_caller(self, now: float) -> None:
        """The replica said that the request is wrong: its caller's fault."""
        self._count()
        self._healthy(now)

    def overloaded(self, now: float, *, is_final: bool) -> None:
        """The replica's queue is full. is_final: the client is told so."""
        self.has_verdict = True
        self.state.health = outlier.after_no_verdict(self.state.health, now)
        if is_final:
            self.counters.requests += 1
            self.counters.failed()

    def failed(self, failure: ReplicaFailure, now: float) -> None:
        """The replica did not answer as one should."""
        self.has_verdict = True
        if failure.kind is FailureKind.CONNECT:
            self.state.is_reachable = False
        if failure.kind is FailureKind.REFUSED:
            self.state.is_leaving = True
        if failure.may_have_started:
            self.counters.requests += 1
            self.counters.failed()
            may_eject = self.call.service.may_eject(self.state)
            self._judge(outlier.after_failure(self.state.health, DEFAULT_POLICY, now, may_eject=may_eject))
        else:
            self.state.health = outlier.after_no_verdict(self.state.health, now)

    def close(self, now: float, *, is_late: bool) -> None:
        """The replica has one request less; who waits in line may have its place.

        is_late: the deadline ended it, which the client sees as an error, and which may not be the replica's fault.
        """
        if not self.has_verdict:
            if is_late:
                self.counters.requests += 1
                self.counters.failed()
            self.state.health = outlier.after_no_verdict(self.state.health, now)
        self._prompt_done()
        self.state.in_flight -= 1
        self.counters.in_flight -= 1
        self.call.service.admit(now)

    def _count(self) -> None:
        self.has_verdict = True
        self.counters.requests += 1
        if self.usage is not None:
            self.counters.prompt_tokens += self.usage.prompt_tokens
            self.counters.generation_tokens += self.usage.completion_tokens

    def _healthy(self, now: float) -> None:
        self.state.health = outlier.after_success(self.state.health, DEFAULT_POLICY, now)

    def _paced(self, seconds_per_token: float, now: float) -> None:
        """Look whether the replica keeps up with the others; one that is sent out begins anew when it comes back."""
        state, service = self.state, self.call.service
        state.pace = outlier.after_answer(state.pace, seconds_per_token)
        if outlier.is_slow(state.pace, [peer.pace for peer in service.peers(state)], DEFAULT_POLICY):
            state.pace = Pace()
            self._judge(outlier.after_slowness(state.health, DEFAULT_POLICY, now, may_eject=service.may_eject(state)))

    def _judge(self, health: EndpointHealth) -> None:
        self.call.service.ejections += health.ejections > self.state.health.ejections
        self.state.health = health

    def _prompt_done(self) -> None:
        self.state.pending_prompt_tokens -= self._pending_tokens
        self._pending_tokens = 0
