"""Random lives of a service: whatever is declared, crashes and restarts, some things always hold, and peace comes.

Found by it are the corners that no table of cases thinks of; each step is one rule, each look is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from argosy.backends.fake import FakeBackend
from argosy.control.loop import ControlLoop
from argosy.control.settings import ControlSettings
from argosy.core.errors import BackendError, StoreError
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceSpec,
    PromotionPolicy,
    Revision,
    RevisionTemplate,
    RolloutPhase,
    RolloutPolicy,
)
from argosy.core.metadata import Metadata
from argosy.core.scaling import ScalingPolicy
from argosy.core.workload import ReplicaPhase, Workload
from argosy.stores.memory import MemoryStore


class Killed(BaseException):
    """The control plane's process ends here."""


class MortalStore(MemoryStore):
    """Fails or kills at a write of choice, before or after it is done."""

    writes_left: int | None = None
    is_after: bool = False
    faults = 0
    is_armed = False  # Only while a control plane looks.

    async def put(self, resource: Any) -> Any:
        return await self._written(super().put, resource)

    async def put_status(self, resource: Any) -> Any:
        return await self._written(super().put_status, resource)

    async def _written(self, write: Any, resource: Any) -> Any:
        if self.faults and self.is_armed:
            self.faults -= 1
            raise StoreError("the disk is full: make room")
        self._count(is_after=False)
        stored = await write(resource)
        self._count(is_after=True)
        return stored

    def _count(self, *, is_after: bool) -> None:
        if self.writes_left is None or is_after != self.is_after:
            return
        if self.writes_left == 0:
            self.writes_left = None
            raise Killed
        self.writes_left -= 1


class MortalBackend(FakeBackend):
    """Kills at a call of choice."""

    calls_left: int | None = None

    async def apply(self, workload: Workload) -> None:
        if self.calls_left == 0:
            self.calls_left = None
            raise Killed
        if self.calls_left:
            self.calls_left -= 1
        await super().apply(workload)


MODELS = st.sampled_from(("a", "b", "c", "d"))


class Life(RuleBasedStateMachine):
    """One service, one backend, one store; control planes come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 1_000_000.0
        self.store = MortalStore(lambda: self.now)
        self.backend = MortalBackend(lambda: self.now)
        self.backend_faults = 0
        self.weighted_at: dict[str, float] = {}
        self.highest = 0
        self.numbers: dict[int, str] = {}
        self.loop = self.control()

    def control(self) -> ControlLoop:
        return ControlLoop(self.store, self.backend, ControlSettings(program=("argosy",)), clock=lambda: self.now)

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    @initialize(model=MODELS, replicas=st.integers(1, 4))
    def declare(self, model: str, replicas: int) -> None:
        spec = InferenceServiceSpec(
            template=RevisionTemplate(model=model),
            scaling=ScalingPolicy(min_replicas=replicas, max_replicas=replicas),
            rollout=RolloutPolicy(progress_deadline_seconds=20.0, history_limit=3),
        )
        self.run(self.store.put(InferenceService(metadata=Metadata(name="chat"), spec=spec)))

    def service(self) -> InferenceService:
        found: InferenceService = self.run(self.store.get(InferenceService, "chat"))
        return found

    def change(self, **fields: Any) -> None:
        service = self.service()
        spec = msgspec.structs.replace(service.spec, **fields)
        self.run(self.store.put(msgspec.structs.replace(service, spec=spec)))
        self.loop._resync_at = self.now

    @rule(model=MODELS)
    def change_template(self, model: str) -> None:
        self.change(template=RevisionTemplate(model=model))

    @rule(replicas=st.integers(0, 5))
    def scale(self, replicas: int) -> None:
        self.change(scaling=ScalingPolicy(min_replicas=replicas, max_replicas=replicas))

    @rule(surge=st.integers(0, 2), unavailable=st.integers(0, 2), steps=st.sampled_from((None, (50, 100), (10, 100))))
    def change_rollout(self, surge: int, unavailable: int, steps: tuple[int, ...] | None) -> None:
        promotion = PromotionPolicy(steps=steps, interval_seconds=2.0, timeout_seconds=9.0) if steps else None
        if promotion is not None or surge == unavailable == 0:
            surge = max(surge, 1)
        policy = msgspec.structs.replace(
            self.service().spec.rollout, max_surge=surge, max_unavailable=unavailable, promotion=promotion
        )
        self.change(rollout=policy)

    @rule(spares=st.integers(0, 2), is_paused=st.booleans())
    def change_others(self, spares: int, is_paused: bool) -> None:
        self.change(warm_spares=spares, paused=is_paused)

    @rule(share=st.integers(0, 100), draw=st.randoms(use_true_random=False))
    def pin(self, share: int, draw: Any) -> None:
        names = sorted(each.short_name for each in self.run(self.store.list(Revision)))
        if not names:
            return
        chosen = draw.sample(names, min(2, len(names)))
        self.change(traffic={chosen[0]: 100} if len(chosen) == 1 else {chosen[0]: share, chosen[1]: 100 - share})

    @rule()
    def unpin(self) -> None:
        self.change(traffic={})

    @rule(draw=st.randoms(use_true_random=False), how=st.sampled_from(("crash", "hang", "recover")))
    def disturb(self, draw: Any, how: str) -> None:
        wanted = ReplicaPhase.UNREADY if how == "recover" else ReplicaPhase.READY
        found = [
            (status.name, each.name)
            for status in self.run(self.backend.list())
            for each in status.replicas
            if each.phase is wanted
        ]
        if found:
            getattr(self.backend, how)(*draw.choice(found))

    @rule(number=st.integers(1, 6), is_failing=st.booleans())
    def break_revision(self, number: int, is_failing: bool) -> None:
        (self.backend.failing.add if is_failing else self.backend.failing.discard)(f"chat-v{number}")

    @rule(capacity=st.sampled_from((2, 4, 100)))
    def change_capacity(self, capacity: int) -> None:
        self.backend.capacity = capacity

    @rule(backend_faults=st.integers(0, 3), store_faults=st.integers(0, 3))
    def fail(self, backend_faults: int, store_faults: int) -> None:
        self.backend_faults += backend_faults
        self.store.faults += store_faults
        self.look()

    @rule(writes=st.integers(0, 6), is_after=st.booleans(), calls=st.one_of(st.none(), st.integers(0, 2)))
    def kill(self, writes: int, is_after: bool, calls: int | None) -> None:
        """Within a look, at a write or a call of choice; another control plane takes over."""
        self.store.writes_left, self.store.is_after, self.backend.calls_left = writes, is_after, calls
        self.loop._resync_at = self.now
        with contextlib.suppress(Killed):
            self.armed_look()
        self.store.writes_left = self.backend.calls_left = None
        self.loop = self.control()

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.0, 3.0, 25.0)))
    def wait(self, seconds: float) -> None:
        for _ in range(min(20, max(1, int(seconds / 0.5)))):
            self.now += min(seconds, 0.5) if seconds < 20 else seconds / 20
            self.look()

    def look(self) -> None:
        """One look, and what it may not do."""
        before, answering = self.counted(), self.answering()
        self.armed_look()
        if self.loop.world.trouble or "chat" not in self.loop.world.services:
            return
        after = self.counted()
        spec = self.loop.world.services["chat"].spec
        desired = spec.scaling.max_replicas
        known = {each.short_name for each in self.run(self.store.list(Revision))}
        pinned = [name for name in spec.traffic if name in known]
        most = max(desired, 1, len(pinned) if desired else 0) + max(spec.rollout.max_surge, int(desired == 0))
        assert after["asked"] <= max(before["asked"], most), (before, after, desired)
        least = max(0, desired - spec.rollout.max_unavailable)
        assert after["ready"] >= min(before["ready"], least), (before, after, desired)
        self.check_routes()
        if spec.rollout.max_surge and desired:
            for name in answering - self.asked():
                assert self.now - self.weighted_at.get(name, 0.0) >= 2.0, f"{name} had a share a moment ago"

    def armed_look(self) -> None:
        """A look during which the planned faults happen."""
        self.backend.faults.extend(BackendError("no answer: wait") for _ in range(self.backend_faults))
        self.store.is_armed = True
        try:
            self.run(self.loop.look())
        finally:
            self.store.is_armed = False
            self.backend_faults = len(self.backend.faults)
            self.backend.faults.clear()

    def counted(self) -> dict[str, int]:
        statuses = self.run(self.backend.list())
        return {
            "asked": sum(each.desired_replicas for each in statuses),
            "ready": sum(len(each.ready()) for each in statuses),
        }

    def answering(self) -> set[str]:
        """Workloads with replicas that take requests."""
        return {each.name for each in self.run(self.backend.list()) if each.ready()}

    def asked(self) -> set[str]:
        """Workloads that shall have replicas."""
        return {each.name for each in self.run(self.backend.list()) if each.desired_replicas}

    def check_routes(self) -> None:
        for route in self.loop.routes().services:
            self.weighted_at.update(
                {f"chat-{each.revision}": self.now for each in route.revisions if each.weight and each.endpoints}
            )
            shares = {each.revision: each.weight for each in route.revisions}
            assert not shares or sum(shares.values()) == 100, route
            if any(each.endpoints for each in route.revisions):
                assert all(each.endpoints for each in route.revisions if each.weight), route

    @invariant()
    def numbers_only_grow(self) -> None:
        revisions = self.run(self.store.list(Revision))
        numbers = {each.spec.number: each.spec.template.model for each in revisions}
        assert all(self.numbers.get(number, model) == model for number, model in numbers.items())
        self.numbers.update(numbers)
        highest = max(numbers, default=0)
        assert highest >= self.highest
        self.highest = highest

    def teardown(self) -> None:
        try:
            self.make_peace()
        finally:
            self.runner.close()

    def make_peace(self) -> None:
        """Left alone, on a machine that works, what is declared is what runs."""
        self.backend_faults = 0
        self.backend.failing.clear()
        self.backend.capacity = 1000
        self.store.faults = 0
        for status in self.run(self.backend.list()):
            for each in status.replicas:
                if each.phase is ReplicaPhase.UNREADY:
                    self.backend.recover(status.name, each.name)
        for _ in range(200):
            self.now += 1.0
            self.look()
        service, statuses = self.service(), self.run(self.backend.list())
        desired, rollout = service.spec.scaling.max_replicas, service.status.rollout
        total = self.counted()
        assert service.status.observed_generation == service.metadata.generation
        if rollout.phase in (RolloutPhase.PROMOTING, RolloutPhase.PAUSED):
            return  # Nobody asks, so nothing is proven.
        pinned = service.spec.traffic
        assert total["ready"] == total["asked"] == max(desired, len(pinned) if desired else 0), (service, statuses)
        lead = rollout.stable
        assert rollout.phase is RolloutPhase.ROLLED_BACK or rollout.stable == rollout.target
        if not pinned:
            assert [each.name for each in statuses] == [f"chat-{lead}"]
            assert {each.is_spare for status in statuses for each in status.replicas} <= {False, True}
            spares = sum(each.is_spare for status in statuses for each in status.replicas)
            assert spares == (service.spec.warm_spares if desired else 0)


Life.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLife = Life.TestCase
