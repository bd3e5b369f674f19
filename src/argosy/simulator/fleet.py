"""The replicas of a simulated service, and the gateway's view of them: who starts, who is routed to, who drains.

Laws of the backend hold here, too: a replica costs from the moment it is started until its last request has ended;
fewer replicas means that those that are not ready go first, then the youngest, and each drains before it ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from argosy.core.load_report import PrefixChanges
from argosy.core.routing import Balancer, Endpoint, EndpointLoad, RequestHint
from argosy.gateway.prefix_index import Holdings, PrefixIndex
from argosy.simulator.replica_model import ReplicaModel
from argosy.simulator.requests import SimulatedRequest


class Replica(msgspec.Struct, kw_only=True, eq=False):
    """One replica. ready_at: when it can serve; infinity while it is a spare. Reported values are the last poll's."""

    model: ReplicaModel
    endpoint: Endpoint
    started_at: float
    ready_at: float
    is_spare: bool = False
    is_ready: bool = False
    is_draining: bool = False
    ended_at: float | None = None
    in_flight: int = 0
    pending_prompt_tokens: int = 0
    reported_running: int = 0
    reported_waiting: int = 0
    reported_kv_usage_ratio: float = 0.0

    def poll(self) -> None:
        """What the gateway learns when it asks the replica."""
        self.reported_running = self.model.num_requests_running
        self.reported_waiting = self.model.num_requests_waiting
        self.reported_kv_usage_ratio = self.model.kv_cache_usage_ratio

    def load(self, held_blocks: int, max_num_seqs: int) -> EndpointLoad:
        """What a balancer sees."""
        return EndpointLoad(
            endpoint=self.endpoint,
            in_flight=self.in_flight,
            pending_prompt_tokens=self.pending_prompt_tokens,
            num_requests_running=self.reported_running,
            num_requests_waiting=self.reported_waiting,
            kv_cache_usage_ratio=self.reported_kv_usage_ratio,
            max_num_seqs=max_num_seqs,
            held_blocks=held_blocks,
        )

    def lifetime(self, end: float) -> float:
        """Seconds it cost, up to `end`."""
        return max(min(end, self.ended_at if self.ended_at is not None else end) - self.started_at, 0.0)


class Fleet:
    """All replicas there ever were. `routed` are those that get requests."""

    def __init__(self, make_model: Callable[[str], ReplicaModel], start_seconds: float, spare_seconds: float) -> None:
        self.replicas: list[Replica] = []
        self.routed: list[Replica] = []
        self._alive: list[Replica] = []
        self._make_model = make_model
        self._start_seconds = start_seconds
        self._spare_seconds = spare_seconds

    @property
    def starting(self) -> list[Replica]:
        """Started for service and not ready, oldest first."""
        return [one for one in self._alive if not one.is_ready and not one.is_spare and not one.is_draining]

    @property
    def count(self) -> int:
        """Replicas that serve or will: ready and starting."""
        return len(self.routed) + len(self.starting)

    def start(self, now: float, *, is_spare: bool = False, is_instant: bool = False) -> Replica:
        """One more replica; a spare is loaded and kept out of rotation."""
        name = f"r{len(self.replicas)}"
        replica = Replica(
            model=self._make_model(name),
            endpoint=Endpoint(replica=name, address=f"{name}:80", revision="v1"),
            started_at=now,
            ready_at=now if is_instant else now + self._start_seconds,
            is_spare=is_spare,
        )
        self.replicas.append(replica)
        self._alive.append(replica)
        return replica

    def loaded_spare(self, now: float) -> Replica | None:
        """A spare to put to use: it has `ready_at` soon; None if none is loaded."""
        for one in self._alive:
            if one.is_spare and one.ready_at <= now:
                one.is_spare = False
                one.ready_at = now + self._spare_seconds
                return one
        return None

    def became_ready(self, replica: Replica) -> None:
        """It passed its probe."""
        replica.is_ready = True
        self.routed.append(replica)

    def drain(self, count: int, now: float) -> None:
        """Take so many out of service."""
        starting = self.starting
        for _ in range(count):
            if starting:
                self._end(starting.pop(), now)
            elif self.routed:
                replica = self.routed.pop()
                replica.is_draining = True
                self.end_if_idle(replica, now)

    def end_if_idle(self, replica: Replica, now: float) -> None:
        """A draining replica ends with its last request."""
        if replica.is_draining and replica.model.is_idle:
            self._end(replica, now)

    def replica_seconds(self, end: float) -> float:
        """What all replicas cost up to `end`, spares included."""
        return sum(one.lifetime(end) for one in self.replicas)

    def _end(self, replica: Replica, now: float) -> None:
        replica.ended_at = now
        replica.is_draining = True
        self._alive.remove(replica)


class Dispatcher:
    """The gateway's choice: the balancer and the prefix index that serve."""

    def __init__(self, balancer: Balancer, max_num_seqs: int, seed: int) -> None:
        self._balancer = balancer
        self._max_num_seqs = max_num_seqs
        self._random = random.Random(seed)
        self._sequence = 0
        self._index = PrefixIndex()
        self._polls = 0

    def poll(self, routed: list[Replica]) -> None:
        """Ask the replicas how they are and what their caches hold."""
        self._polls += 1
        for one in routed:
            one.poll()
            added, removed = one.model.cache.take_changes()
            if added or removed:
                changes = PrefixChanges(sequence=self._polls, is_whole=False, added=added, removed=removed)
                self._index.apply(one.endpoint.replica, changes)

    def forget(self, replica: Replica) -> None:
        """It is gone."""
        self._index.forget(replica.endpoint.replica)

    def choose(self, request: SimulatedRequest, routed: list[Replica], now: float) -> tuple[Replica, int]:
        """One of at least one replica, and how many of the prompt's blocks it is thought to hold."""
        blocks = request.blocks
        found = self._index.lookup(blocks, now) if blocks else Holdings()
        loads = [one.load(found.held.get(one.endpoint.replica, 0), self._max_num_seqs) for one in routed]
        hint = RequestHint(
            prompt_tokens=request.prompt_tokens,
            num_blocks=len(blocks),
            sequence=self._sequence,
            draws=(self._random.random(), self._random.random()),
            first_new_block=found.first_new_block,
        )
        self._sequence += 1
        chosen = self._balancer(loads, hint)
        replica = next(one for one in routed if one.endpoint is chosen)
        if blocks:
            self._index.mark(chosen.replica, blocks, now)
        return replica, found.held.get(chosen.replica, 0)
