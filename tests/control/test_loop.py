"""The loop with a store and replicas in memory: what a service goes through, look by look."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from tests.control.conftest import PROMOTED, Gateway, Stage

from argosy.control.loop import ControlLoop
from argosy.core.errors import BackendError, StoreError
from argosy.core.inference_service import (
    GatewayPolicy,
    InferenceService,
    Revision,
    RolloutPhase,
    RolloutPolicy,
    ServicePhase,
    ShadowPolicy,
)
from argosy.core.interfaces import Change
from argosy.core.metadata import Condition, ConditionStatus, Event
from argosy.core.scaling import ScalingMetric, ScalingPolicy
from argosy.core.workload import ReplicaPhase

pytestmark = pytest.mark.anyio


def condition(conditions: tuple[Condition, ...], kind: str) -> Condition:
    (found,) = [each for each in conditions if each.type == kind]
    return found


class TestFirstDeploy:
    async def test_a_declared_service_becomes_a_revision_replicas_and_a_route(self, stage: Stage) -> None:
        await stage.declare(replicas=2)
        await stage.loop.look()
        assert await stage.replicas(ReplicaPhase.STARTING) == {"chat-v1": 2}
        assert stage.weights() == {"v1": 100}
        assert stage.endpoints() == {"v1": 0}
        assert (await stage.status()).phase is ServicePhase.PENDING
        await stage.run(2)
        status = await stage.status()
        assert (status.phase, status.ready_replicas, status.desired_replicas) == (ServicePhase.READY, 2, 2)
        assert (status.rollout.phase, status.rollout.stable) == (RolloutPhase.STABLE, "v1")
        assert condition(status.conditions, "Ready").status is ConditionStatus.TRUE
        assert stage.endpoints() == {"v1": 2}
        assert await stage.reasons() == ["RevisionCreated", "RolloutStarted", "RolloutComplete", "ServiceReady"]

    async def test_nothing_is_written_while_nothing_changes(self, stage: Stage) -> None:
        await stage.declare(scaling=ScalingPolicy(min_replicas=1, max_replicas=4))
        stage.gateway = Gateway()
        await stage.run(5)
        version = (await stage.service()).metadata.resource_version
        await stage.run(60)
        assert (await stage.service()).metadata.resource_version == version

    async def test_a_revision_that_never_becomes_ready_is_said_to_be_late(self, stage: Stage) -> None:
        stage.backend.start_seconds = lambda workload: 1e6
        await stage.declare(rollout=RolloutPolicy(progress_deadline_seconds=20.0))
        await stage.run(30)
        status = await stage.status()
        assert condition(status.conditions, "Progressing").reason == "ProgressDeadlineExceeded"
        assert "ProgressDeadlineExceeded" in await stage.reasons()
        assert await stage.replicas() == {"chat-v1": 1}

    async def test_a_service_whose_replicas_fail_says_so(self, stage: Stage) -> None:
        stage.backend.failing.add("chat-v1")
        await stage.declare()
        await stage.run(20)
        status = await stage.status()
        assert status.phase is ServicePhase.FAILED
        ready = condition(status.conditions, "Ready")
        assert (ready.status, ready.reason) == (ConditionStatus.FALSE, "ReplicasFailing")
        assert "exit code 1" in ready.message

    async def test_f14_a_service_that_cannot_start_gives_gateways_the_reason(self, stage: Stage) -> None:
        stage.backend.failing.add("chat-v1")
        await stage.declare()
        await stage.run(20)
        (route,) = stage.loop.routes().services
        assert "fails again and again" in route.failure
        assert "exit code 1" in route.failure

    async def test_a_deleted_service_leaves_nothing(self, stage: Stage) -> None:
        await stage.declare(replicas=2)
        await stage.run(3)
        await stage.store.delete(InferenceService, "chat")
        await stage.run(15)
        assert await stage.backend.list() == []
        assert await stage.store.list(Revision) == []
        assert stage.loop.routes().services == ()

    async def test_a_deletion_nobody_told_of_is_found(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        await stage.store.delete(InferenceService, "chat")
        stage.loop = stage.control()
        await stage.run(15)
        assert await stage.backend.list() == []

    async def test_a_spec_that_cannot_be_followed_is_refused_and_what_runs_stays(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        await stage.change(traffic={"v9": 100})
        await stage.run(3)
        status = await stage.status()
        assert condition(status.conditions, "Ready").reason == "SpecRefused"
        assert await stage.replicas(ReplicaPhase.READY) == {"chat-v1": 1}
        assert stage.endpoints() == {"v1": 1}
        assert (await stage.reasons())[-1] == "SpecRefused"
        await stage.change(traffic={})
        await stage.run(3)
        assert (await stage.status()).phase is ServicePhase.READY


class TestRollingUpdate:
    async def test_traffic_moves_once_the_new_replica_is_ready_and_the_old_one_lingers(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        await stage.change(model="two")
        await stage.run(0.5)
        assert (stage.weights(), stage.endpoints()) == ({"v1": 100}, {"v1": 1})
        assert await stage.replicas() == {"chat-v1": 1, "chat-v2": 1}
        await stage.run(1)
        assert stage.weights() == {"v1": 0, "v2": 100}
        assert await stage.replicas(ReplicaPhase.READY) == {"chat-v1": 1, "chat-v2": 1}
        await stage.run(3)
        assert (stage.weights(), await stage.replicas()) == ({"v2": 100}, {"chat-v2": 1})
        assert (await stage.status()).rollout.stable == "v2"

    async def test_f02_four_replicas_are_replaced_within_surge_and_unavailable(self, stage: Stage) -> None:
        await stage.declare(replicas=4)
        await stage.run(3)
        await stage.change(model="two")
        most, least, shares = 0, 99, set()
        for _ in range(100):
            await stage.run(0.25)
            most = max(most, sum((await stage.replicas()).values()))
            least = min(least, sum((await stage.replicas(ReplicaPhase.READY)).values()))
            shares.add(stage.weights().get("v2", 0))
        assert (most, least) == (5, 4)
        assert {0, 100} < shares
        assert await stage.replicas() == {"chat-v2": 4}

    async def test_without_surge_the_old_one_makes_room_first(self, stage: Stage) -> None:
        stage.backend.capacity = 1
        stage.backend.drain_seconds = 0.1
        await stage.declare(rollout=RolloutPolicy(max_surge=0, max_unavailable=1))
        await stage.run(3)
        await stage.change(model="two")
        await stage.run(6)
        assert await stage.replicas(ReplicaPhase.READY) == {"chat-v2": 1}

    async def test_a_template_that_a_revision_has_already_leads_back_to_it(self, stage: Stage) -> None:
        await stage.declare(model="one")
        await stage.run(3)
        await stage.change(model="two")
        await stage.run(8)
        await stage.change(model="one")
        await stage.run(8)
        assert await stage.replicas() == {"chat-v1": 1}
        assert len(await stage.store.list(Revision)) == 2

    async def test_a_revision_too_slow_gives_way_to_the_last_good_one(self, stage: Stage) -> None:
        await stage.declare(rollout=RolloutPolicy(progress_deadline_seconds=20.0))
        await stage.run(3)
        stage.backend.start_seconds = lambda workload: 1e6
        await stage.change(model="two")
        await stage.run(25)
        status = await stage.status()
        assert (status.rollout.phase, status.rollout.target) == (RolloutPhase.ROLLED_BACK, "v2")
        assert status.phase is ServicePhase.DEGRADED
        assert condition(status.conditions, "Progressing").reason == "RolledBack"
        assert (await stage.replicas(), stage.weights()) == ({"chat-v1": 1}, {"v1": 100})
        await stage.run(60)
        assert (await stage.status()).rollout.phase is RolloutPhase.ROLLED_BACK
        assert (await stage.reasons()).count("RolledBack") == 1

    async def test_a_revision_that_fails_again_and_again_gives_way_before_the_deadline(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        stage.backend.failing.add("chat-v2")
        await stage.change(model="two")
        await stage.run(20)
        status = await stage.status()
        assert status.rollout.phase is RolloutPhase.ROLLED_BACK
        assert "again and again" in status.rollout.message
        stage.backend.failing.clear()
        await stage.change(warm_spares=0, replicas=2)
        await stage.run(10)
        assert await stage.replicas(ReplicaPhase.READY) == {"chat-v2": 2}

    async def test_a_paused_rollout_stays_where_it_is(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        await stage.change(model="two", paused=True)
        await stage.run(30)
        assert await stage.replicas() == {"chat-v1": 1}
        assert (await stage.status()).rollout.phase is RolloutPhase.PAUSED
        await stage.change(paused=False)
        await stage.run(8)
        assert await stage.replicas() == {"chat-v2": 1}

    async def test_old_revisions_beyond_the_limit_are_forgotten(self, stage: Stage) -> None:
        await stage.declare(rollout=RolloutPolicy(history_limit=1))
        for model in ("two", "three", "four"):
            await stage.run(6)
            await stage.change(model=model)
        await stage.run(10)
        assert [each.spec.number for each in await stage.store.list(Revision)] == [3, 4]

    async def test_spares_move_with_the_good_revision(self, stage: Stage) -> None:
        await stage.declare(warm_spares=1)
        await stage.run(3)
        assert (await stage.status()).revisions[0].spare_replicas == 1
        assert stage.endpoints() == {"v1": 1}
        await stage.change(model="two")
        await stage.run(10)
        (row,) = (await stage.status()).revisions
        assert (row.revision, row.ready_replicas, row.spare_replicas) == ("v2", 1, 1)

    async def test_a_shadow_runs_beside_and_stands_in_no_rollouts_way(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        await stage.change(model="two")
        await stage.run(8)
        await stage.change(gateway=GatewayPolicy(shadow=ShadowPolicy(revision="v1")))
        await stage.run(3)
        assert (stage.weights(), stage.endpoints()) == ({"v1": 0, "v2": 100}, {"v1": 1, "v2": 1})
        await stage.change(model="three")
        await stage.run(8)
        assert (stage.weights(), stage.endpoints()) == ({"v1": 0, "v3": 100}, {"v1": 1, "v3": 1})


class TestWeightsByHand:
    async def test_they_rule_and_replicas_follow(self, stage: Stage) -> None:
        await stage.declare(model="one", replicas=4)
        await stage.run(3)
        await stage.change(model="two")
        await stage.run(30)
        await stage.change(traffic={"v1": 75, "v2": 25})
        await stage.run(15)
        assert stage.weights() == {"v1": 75, "v2": 25}
        assert await stage.replicas(ReplicaPhase.READY) == {"chat-v1": 3, "chat-v2": 1}

    async def test_a_newer_revision_gets_nothing_until_it_is_named(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        await stage.change(traffic={"v1": 100})
        await stage.change(model="two")
        await stage.run(10)
        assert (await stage.replicas(), stage.weights()) == ({"chat-v1": 1}, {"v1": 100})
        await stage.change(traffic={"v1": 90, "v2": 10})
        await stage.run(0.5)
        assert stage.weights() == {"v1": 100}  # v2 has no endpoint yet
        await stage.run(3)
        assert stage.weights() == {"v1": 90, "v2": 10}
        await stage.change(traffic={})
        await stage.run(10)
        assert stage.weights() == {"v2": 100}

    async def test_a_revision_without_replicas_gets_no_share(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        await stage.change(model="two")
        await stage.run(8)
        await stage.change(traffic={"v1": 50, "v2": 50})
        await stage.run(4)
        (replica,) = next(each for each in await stage.backend.list() if each.name == "chat-v1").replicas
        stage.backend.hang("chat-v1", replica.name)
        await stage.run(0.25)
        assert stage.weights() == {"v2": 100}


class TestPromotion:
    async def promoting(self, stage: Stage) -> Gateway:
        stage.gateway = gateway = Gateway()
        await stage.declare(rollout=PROMOTED)
        await stage.run(3)
        await stage.change(model="two")
        await stage.run(2)
        assert stage.weights() == {"v1": 90, "v2": 10}
        return gateway

    async def test_a_revision_that_holds_is_given_more_step_by_step(self, stage: Stage) -> None:
        gateway = await self.promoting(stage)
        seen = []
        for _ in range(120):
            gateway.serve("chat", "v1", 20)
            gateway.serve("chat", "v2", 3)
            await stage.run(0.5)
            seen.append(stage.weights().get("v2", 0))
        assert [share for index, share in enumerate(seen) if share not in seen[:index]] == [10, 50, 100]
        assert (await stage.status()).rollout.stable == "v2"
        assert await stage.replicas() == {"chat-v2": 1}

    async def test_without_requests_it_waits_and_then_pauses(self, stage: Stage) -> None:
        gateway = await self.promoting(stage)
        await stage.run(30)
        assert stage.weights() == {"v1": 90, "v2": 10}
        await stage.run(40)
        assert (await stage.status()).rollout.phase is RolloutPhase.PAUSED
        assert "0 of the 50 requests" in (await stage.status()).rollout.message
        gateway.serve("chat", "v1", 500)
        gateway.serve("chat", "v2", 100)
        await stage.run(3)
        assert stage.weights() == {"v1": 50, "v2": 50}

    async def test_a_revision_that_fails_requests_is_out_within_a_second(self, stage: Stage) -> None:
        gateway = await self.promoting(stage)
        gateway.serve("chat", "v1", 200)
        gateway.serve("chat", "v2", 10, errors=8)
        await stage.run(1.25)
        assert stage.weights() == {"v1": 100, "v2": 0}
        status = await stage.status()
        assert status.rollout.phase is RolloutPhase.ROLLED_BACK
        assert "80.00% of 10 requests to v2 failed" in status.rollout.message
        await stage.run(5)
        assert await stage.replicas() == {"chat-v1": 1}

    async def test_a_slower_revision_is_sent_back_at_the_end_of_the_step(self, stage: Stage) -> None:
        gateway = await self.promoting(stage)
        for _ in range(30):
            gateway.serve("chat", "v1", 20, ttft=0.1)
            gateway.serve("chat", "v2", 10, ttft=0.19)
            await stage.run(0.5)
        assert (await stage.status()).rollout.phase is RolloutPhase.ROLLED_BACK
        assert "time to first token" in (await stage.status()).rollout.message

    async def test_the_last_step_still_returns(self, stage: Stage) -> None:
        gateway = await self.promoting(stage)
        while stage.weights().get("v2") != 100:
            gateway.serve("chat", "v1", 20)
            gateway.serve("chat", "v2", 10)
            await stage.run(0.5)
        gateway.serve("chat", "v2", 40, errors=30)
        await stage.run(1.5)
        assert stage.weights() == {"v1": 100, "v2": 0}

    async def test_a_restarted_control_plane_measures_the_step_again(self, stage: Stage) -> None:
        gateway = await self.promoting(stage)
        gateway.serve("chat", "v1", 500)
        gateway.serve("chat", "v2", 100)
        await stage.run(5)
        stage.loop = stage.control()
        await stage.run(15)
        assert stage.weights() == {"v1": 90, "v2": 10}
        gateway.serve("chat", "v1", 500)
        gateway.serve("chat", "v2", 100)
        await stage.run(3)
        assert stage.weights() == {"v1": 50, "v2": 50}

    async def test_an_undo_is_not_measured(self, stage: Stage) -> None:
        await self.promoting(stage)
        await stage.change(rollout=RolloutPolicy())
        await stage.run(5)
        assert stage.weights() == {"v2": 100}
        await stage.change(rollout=PROMOTED, model="one")
        await stage.run(5)
        assert stage.weights() == {"v1": 100}


IDLE_TO_FOUR = ScalingPolicy(
    min_replicas=0,
    max_replicas=4,
    metric=ScalingMetric.CONCURRENCY,
    target=2.0,
    window_seconds=5.0,
    scale_down_stabilization_seconds=10.0,
    scale_to_zero_after_seconds=30.0,
)


class TestScaling:
    async def test_it_follows_the_load_up_and_down(self, stage: Stage) -> None:
        stage.gateway = Gateway()
        await stage.declare(scaling=msgspec.structs.replace(IDLE_TO_FOUR, min_replicas=1))
        await stage.run(3)
        stage.busy["chat"] = 8
        await stage.run(20)
        assert await stage.replicas(ReplicaPhase.READY) == {"chat-v1": 4}
        stage.busy["chat"] = 1
        await stage.run(60)
        assert await stage.replicas(ReplicaPhase.READY) == {"chat-v1": 1}
        assert {"ScaledUp", "ScaledDown"} <= set(await stage.reasons())

    async def test_f14_it_sleeps_and_one_held_request_wakes_one_replica_at_once(self, stage: Stage) -> None:
        stage.gateway = gateway = Gateway()
        await stage.declare(scaling=IDLE_TO_FOUR)
        await stage.run(3)
        assert await stage.replicas() == {"chat-v1": 1}
        await stage.run(60)
        assert await stage.replicas() == {}
        status = await stage.status()
        assert (status.phase, condition(status.conditions, "Ready").reason) == (ServicePhase.IDLE, "Idle")
        assert stage.weights() == {"v1": 100}
        gateway.held["chat"] = gateway.arrivals["chat"] = 1
        stage.now += 0.1
        await stage.report()
        await stage.loop.look()
        assert await stage.replicas() == {"chat-v1": 1}
        assert (await stage.status()).woken_at == stage.now
        await stage.run(1)
        assert await stage.replicas() == {"chat-v1": 1}
        assert (await stage.reasons()).count("Woken") == 1

    async def test_f13_silence_of_the_gateway_takes_no_replica_away(self, stage: Stage) -> None:
        stage.gateway = Gateway()
        await stage.declare(scaling=IDLE_TO_FOUR)
        stage.busy["chat"] = 6
        await stage.run(20)
        before = await stage.replicas()
        stage.gateway = None
        await stage.run(300)
        assert await stage.replicas() == before
        scaling = condition((await stage.status()).conditions, "Scaling")
        assert (scaling.status, scaling.reason) == (ConditionStatus.UNKNOWN, "FiguresMissing")

    async def test_f13_a_gateway_that_starts_anew_takes_no_replica_away(self, stage: Stage) -> None:
        stage.gateway = Gateway()
        await stage.declare(scaling=msgspec.structs.replace(IDLE_TO_FOUR, min_replicas=1))
        stage.busy["chat"] = 6
        await stage.run(20)
        before = await stage.replicas()
        stage.gateway = Gateway(epoch="two")
        await stage.run(5)
        assert await stage.replicas() == before

    async def test_a_restarted_control_plane_keeps_the_number(self, stage: Stage) -> None:
        stage.gateway = Gateway()
        await stage.declare(scaling=msgspec.structs.replace(IDLE_TO_FOUR, min_replicas=1))
        stage.busy["chat"] = 6
        await stage.run(20)
        before = await stage.replicas()
        stage.loop = stage.control()
        stage.busy["chat"] = 0
        await stage.run(8)
        assert await stage.replicas() == before

    async def test_bounds_of_a_changed_policy_hold_at_once(self, stage: Stage) -> None:
        await stage.declare(replicas=3)
        await stage.run(3)
        await stage.change(scaling=ScalingPolicy(min_replicas=1, max_replicas=2))
        await stage.run(1)
        assert await stage.replicas() == {"chat-v1": 2}

    async def test_a_rollout_of_a_sleeping_service_tries_one_replica(self, stage: Stage) -> None:
        stage.gateway = Gateway()
        await stage.declare(scaling=IDLE_TO_FOUR)
        await stage.run(60)
        await stage.change(model="two")
        await stage.run(0.5)
        assert await stage.replicas() == {"chat-v2": 1}
        await stage.run(60)
        assert await stage.replicas() == {}
        assert (await stage.status()).rollout.stable == "v2"


class TestFaults:
    async def test_a_backend_that_fails_is_told_and_tried_again(self, stage: Stage) -> None:
        await stage.declare()
        await stage.loop.look()
        await stage.change(replicas=2)
        stage.backend.faults.append(BackendError("no answer: look at it"))
        stage.loop.heard(Change(resource=await stage.service()))
        await stage.run(0.25)
        assert stage.loop.world.trouble == "no answer: look at it"
        await stage.run(3)
        assert await stage.replicas() == {"chat-v1": 2}

    async def test_a_refused_change_stands_in_the_status(self, stage: Stage) -> None:
        refusing = RefusingBackend(stage)
        stage.loop = ControlLoop(stage.store, refusing, stage.loop.settings, clock=stage.clock)
        await stage.declare()
        await stage.run(1)
        synced = condition((await stage.status()).conditions, "Synced")
        assert (synced.status, synced.reason) == (ConditionStatus.FALSE, "BackendFailed")
        assert synced.message == "no: ask again"
        refusing.refusals = 0
        await stage.run(10)
        assert condition((await stage.status()).conditions, "Synced").status is ConditionStatus.TRUE
        assert await stage.replicas() == {"chat-v1": 1}

    async def test_f12_a_late_or_doubled_change_is_none(self, stage: Stage) -> None:
        old = await stage.declare()
        await stage.run(2)
        await stage.change(replicas=2)
        stage.loop.heard(Change(resource=old))
        stage.loop.heard(Change(resource=old))
        await stage.run(3)
        assert await stage.replicas() == {"chat-v1": 2}

    async def test_f12_two_control_planes_converge(self, stage: Stage) -> None:
        await stage.declare(replicas=2)
        other = stage.control()
        for index in range(60):
            stage.now += 0.25
            await stage.loop.look()
            await other.look()
            if index == 20:
                await stage.change(model="two")
        assert await stage.replicas() == {"chat-v2": 2}
        assert len(await stage.store.list(Revision)) == 2

    async def test_f11_a_clock_that_jumps_between_runs_expires_nothing(self, stage: Stage) -> None:
        await stage.declare(rollout=RolloutPolicy(progress_deadline_seconds=20.0))
        await stage.run(3)
        stage.backend.start_seconds = lambda workload: 1e6
        await stage.change(model="two", rollout=RolloutPolicy(progress_deadline_seconds=100.0))
        await stage.run(5)
        stage.now += 3600.0
        stage.loop = stage.control()
        await stage.loop.look()
        assert (await stage.status()).rollout.phase is RolloutPhase.PROGRESSING

    async def test_a_store_that_cannot_be_read_changes_nothing(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        broken = ControlLoop(BrokenStore(), stage.backend, stage.loop.settings, clock=stage.clock)
        await broken.look()
        assert broken.routes().version == 0
        assert "disk" in broken.world.trouble
        assert await stage.replicas() == {"chat-v1": 1}

    async def test_the_same_event_again_is_counted(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        for _ in range(2):
            await stage.change(replicas=0)
            await stage.run(3)
            await stage.change(replicas=1)
            await stage.run(3)
        counts = {each.reason: each.count for each in await stage.store.list(Event)}
        assert (counts["ScaledToZero"], counts["ScaledUp"]) == (2, 2)


class RefusingBackend:
    """A backend that lists, and refuses every change."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.refusals = stage, 99

    def __getattr__(self, name: str) -> object:
        if name in ("apply", "delete") and self.refusals:
            self.refusals -= 1
            raise BackendError("no: ask again")
        return getattr(self.stage.backend, name)


class BrokenStore:
    """A store whose disk is gone."""

    async def list(self, kind: type) -> list[object]:
        raise StoreError("the disk cannot be read")


class TestRun:
    async def test_it_follows_the_store_and_the_backend_by_itself(self, stage: Stage) -> None:
        """In real time: nothing here may depend on a look that a test asked for."""
        loop = ControlLoop(stage.store, stage.backend, msgspec.structs.replace(stage.loop.settings))
        stage.backend.start_seconds = lambda workload: 0.0
        task = asyncio.create_task(loop.run())
        try:
            async with asyncio.timeout(10):
                await loop.routes_changed(0)
                await stage.declare()
                table = await loop.routes_changed(1)
                while not any(each.revisions and each.revisions[0].endpoints for each in table.services):
                    table = await loop.routes_changed(table.version)
        finally:
            task.cancel()
        assert table.services[0].names == ("chat",)
