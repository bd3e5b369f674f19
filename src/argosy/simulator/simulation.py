"""Requests, replicas and a scaler on one virtual clock: what happens, event by event, until the last request has ended.

The order of things is that of production: the gateway chooses when a request arrives and holds it while no replica is
ready; it asks the replicas how they are every `poll_seconds`, so its picture is as old as in life; the scaler sees
what the gateway reported, decides every so often, and a replica it asks for takes its time to start.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import msgspec

from argosy.core.inference_service import GatewayPolicy
from argosy.core.scaling import ScalingSample, Slo
from argosy.gateway.balancers import BALANCERS
from argosy.serving.admission_policy import AdmissionLimits
from argosy.simulator.fleet import Dispatcher, Fleet, Replica
from argosy.simulator.replica_model import PromptClock, ReplicaModel
from argosy.simulator.requests import SimulatedRequest, is_good
from argosy.simulator.step_times import StepTimes

_READY, _REPLICA, _POLL, _DECIDE = range(4)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a scaler may look at: the sample that the controller gets, and what the baselines want beside it.

    cpu_usage_ratio: mean over ready replicas since the last look; a replica computes with all its cores or none.
    """

    sample: ScalingSample
    cpu_usage_ratio: float


class Scaler(Protocol):
    """Decides how many replicas run, every `interval_seconds`."""

    @property
    def interval_seconds(self) -> float:
        """How often it looks."""
        ...

    def decide(self, seen: Seen) -> tuple[int, str]:
        """How many, and why."""
        ...


class SimulationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated, whatever the policy. block_tokens: of the requests' prefix blocks.

    start_seconds: None = the profile's. overhead_seconds: of a request outside the engine, until its first token.
    """

    profile: StepTimes
    slo: Slo = Slo()
    gateway: GatewayPolicy = GatewayPolicy()
    limits: AdmissionLimits | None = None
    initial_replicas: int = 1
    warm_spares: int = 0
    start_seconds: float | None = None
    block_tokens: int = 512
    poll_seconds: float = 0.5
    overhead_seconds: float = 0.0
    seed: int = 0


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the fleet: replicas asked for, ready, and alive (starting, draining and spare ones included)."""

    at_seconds: float
    desired: int
    ready: int
    message: str = ""


class SimulationRun(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. replica_seconds: up to `horizon_seconds`, the last arrival."""

    requests: Sequence[SimulatedRequest]
    moments: Sequence[Moment]
    replica_seconds: float
    horizon_seconds: float


class _Counts(msgspec.Struct, kw_only=True):
    arrivals: int = 0
    completions: int = 0
    slo_good: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    started: int = 0
    queue_seconds: float = 0.0


class Simulation:
    """One run; `run` once."""

    def __init__(self, spec: SimulationSpec, requests: Sequence[SimulatedRequest], scaler: Scaler) -> None:
        self._spec = spec
        self._requests = requests
        self._scaler = scaler
        self._horizon = requests[-1].at_seconds if requests else 0.0
        profile = spec.profile
        limits = spec.limits or AdmissionLimits(max_running=profile.max_num_seqs)
        start = profile.start_seconds if spec.start_seconds is None else spec.start_seconds
        spare = profile.warm_spare_seconds if profile.warm_spare_seconds is not None else start
        self._fleet = Fleet(lambda name: ReplicaModel(name, profile, limits, spec.block_tokens), start, spare)
        self._dispatcher = Dispatcher(BALANCERS[spec.gateway.balancer], profile.max_num_seqs, spec.seed)
        self._alone = PromptClock(profile)
        self._held: deque[SimulatedRequest] = deque()
        self._at: dict[SimulatedRequest, Replica] = {}
        self._heap: list[tuple[float, int, int, Replica | None]] = []
        self._serial = 0
        self._counts = _Counts()
        self._looked_at = 0.0
        self._busy_before = 0.0
        self._ready_seconds = 0.0
        self._ready_since = 0.0
        self._moments: list[Moment] = []
        self._desired = spec.initial_replicas

    def run(self) -> SimulationRun:
        """Everything that happens, until the last request has ended."""
        for _ in range(self._spec.initial_replicas):
            self._fleet.became_ready(self._fleet.start(0.0, is_instant=True))
        for _ in range(self._spec.warm_spares):
            self._fleet.start(0.0, is_spare=True, is_instant=True)
        self._note(0.0, "the beginning")
        self._push(self._spec.poll_seconds, _POLL, None)
        self._push(self._scaler.interval_seconds, _DECIDE, None)
        heap, requests, count = self._heap, self._requests, len(self._requests)
        index = 0
        while index < count or heap:
            if index < count and (not heap or requests[index].at_seconds <= heap[0][0]):
                request = requests[index]
                index += 1
                self._counts.arrivals += 1
                self._arrive(request, request.at_seconds)
                continue
            now, _, kind, replica = heapq.heappop(heap)
            self._happen(kind, replica, now)
        return SimulationRun(
            requests=self._requests,
            moments=self._moments,
            replica_seconds=self._fleet.replica_seconds(self._horizon),
            horizon_seconds=self._horizon,
        )

    def _happen(self, kind: int, replica: Replica | None, now: float) -> None:
        if kind == _POLL:
            self._dispatcher.poll(self._fleet.routed)
            if now + self._spec.poll_seconds <= self._horizon:
                self._push(now + self._spec.poll_seconds, _POLL, None)
        elif kind == _DECIDE:
            self._decide(now)
            if now <= self._horizon or self._held:
                self._push(now + self._scaler.interval_seconds, _DECIDE, None)
        elif replica is not None and kind == _READY:
            self._ready(replica, now)
        elif replica is not None and replica.model.next_at <= now:
            self._advance(replica, now)

    def _arrive(self, request: SimulatedRequest, now: float) -> None:
        """Send it on, or hold it while there is no replica."""
        if self._fleet.routed:
            self._send(request, now)
        elif len(self._held) < self._spec.gateway.max_held:
            self._held.append(request)
        else:
            request.failure = f"{len(self._held)} requests are held already"

    def _send(self, request: SimulatedRequest, now: float) -> None:
        if request.prompt_tokens + request.output_tokens > self._spec.profile.max_model_len:
            request.failure = "longer than the model's context"
            return
        replica, held_blocks = self._dispatcher.choose(request, self._fleet.routed, now)
        request.pending_tokens = max(request.prompt_tokens - held_blocks * self._spec.block_tokens, 1)
        model = replica.model
        before = model.next_at
        refused = model.offer(request, now)
        if request not in refused:
            self._at[request] = replica
            replica.in_flight += 1
            replica.pending_prompt_tokens += request.pending_tokens
        for one in refused:
            if one is not request:
                self._forget(one)
        if model.next_at != before:
            self._push(model.next_at, _REPLICA, replica)

    def _advance(self, replica: Replica, now: float) -> None:
        firsts, ended = replica.model.advance(now)
        for request in firsts:
            self._first_token(request, replica)
        for request in ended:
            self._end(request)
        if replica.model.next_at < float("inf"):
            self._push(replica.model.next_at, _REPLICA, replica)
        elif replica.is_draining:
            self._fleet.end_if_idle(replica, now)

    def _first_token(self, request: SimulatedRequest, replica: Replica) -> None:
        replica.pending_prompt_tokens -= request.pending_tokens
        counts = self._counts
        counts.started += 1
        alone = self._alone.seconds(request.prompt_tokens, request.cached_tokens)
        counts.queue_seconds += max((request.ttft_seconds or 0.0) - alone, 0.0)
        if request.first_token_at is not None:
            request.first_token_at += self._spec.overhead_seconds

    def _end(self, request: SimulatedRequest) -> None:
        self._forget(request)
        if request.failure:
            return
        if request.ended_at is not None:
            request.ended_at += self._spec.overhead_seconds
        counts = self._counts
        counts.completions += 1
        counts.slo_good += is_good(request, self._spec.slo)
        counts.prompt_tokens += request.prompt_tokens
        counts.generation_tokens += request.output_tokens

    def _forget(self, request: SimulatedRequest) -> None:
        replica = self._at.pop(request)
        replica.in_flight -= 1
        if request.first_token_at is None:
            replica.pending_prompt_tokens -= request.pending_tokens

    def _ready(self, replica: Replica, now: float) -> None:
        if replica.is_draining or replica.is_ready:
            return
        self._count_ready_time(now)
        self._fleet.became_ready(replica)
        self._note(now, "")
        while self._held:
            self._send(self._held.popleft(), now)

    def _decide(self, now: float) -> None:
        desired, message = self._scaler.decide(self._seen(now))
        change = desired - self._fleet.count
        if change > 0:
            for _ in range(change):
                self._scale_up(now)
        elif change < 0:
            self._count_ready_time(now)
            self._fleet.drain(-change, now)
        if desired != self._desired or change:
            self._desired = desired
            self._note(now, message)

    def _scale_up(self, now: float) -> None:
        spare = self._fleet.loaded_spare(now)
        replica = spare or self._fleet.start(now)
        self._push(replica.ready_at, _READY, replica)
        if spare is not None:
            self._fleet.start(now, is_spare=True)

    def _seen(self, now: float) -> Seen:
        self._count_ready_time(now)
        routed = self._fleet.routed
        busy = sum(one.model.busy_seconds(now) for one in self._fleet.replicas)
        counts, self._counts = self._counts, _Counts()
        sample = ScalingSample(
            now=now,
            interval_seconds=now - self._looked_at,
            ready_replicas=len(routed),
            starting_replicas=len(self._fleet.starting),
            num_requests_running=sum(one.reported_running for one in routed),
            num_requests_waiting=sum(one.reported_waiting for one in routed),
            num_requests_held=len(self._held),
            max_num_seqs=self._spec.profile.max_num_seqs,
            kv_cache_usage_ratio=sum(one.reported_kv_usage_ratio for one in routed) / max(len(routed), 1),
            **msgspec.structs.asdict(counts),
        )
        usage = (busy - self._busy_before) / self._ready_seconds if self._ready_seconds > 0 else 0.0
        self._busy_before, self._ready_seconds, self._looked_at = busy, 0.0, now
        return Seen(sample=sample, cpu_usage_ratio=min(usage, 1.0))

    def _count_ready_time(self, now: float) -> None:
        self._ready_seconds += len(self._fleet.routed) * (now - self._ready_since)
        self._ready_since = now

    def _note(self, now: float, message: str) -> None:
        ready = len(self._fleet.routed)
        self._moments.append(Moment(at_seconds=now, desired=self._desired, ready=ready, message=message))

    def _push(self, at: float, kind: int, replica: Replica | None) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (at, self._serial, kind, replica))
