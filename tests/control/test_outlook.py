"""What people are told: routes, rows of `top`, replicas, and `why` in sentences."""

from __future__ import annotations

import msgspec
import pytest
from tests.control.conftest import PROMOTED, Gateway, Stage

from argosy.control.explain import failing_replica
from argosy.core.errors import NotFound
from argosy.core.inference_service import RevisionTemplate, RolloutPolicy
from argosy.core.load_report import ReplicaLoad, ReplicaReport
from argosy.core.scaling import ScalingPolicy
from argosy.core.service_views import Why
from argosy.core.workload import ReplicaPhase

pytestmark = pytest.mark.anyio


async def why(stage: Stage) -> Why:
    return await stage.loop.outlook.why("chat")


class TestWhy:
    async def test_an_unknown_service(self, stage: Stage) -> None:
        with pytest.raises(NotFound):
            await stage.loop.outlook.why("nobody")

    async def test_before_anything_was_looked_at(self, stage: Stage) -> None:
        await stage.declare()
        assert (await why(stage)).answer.startswith("The control plane cannot see what runs: ")

    async def test_a_start(self, stage: Stage) -> None:
        stage.backend.start_seconds = lambda workload: 60.0
        await stage.declare()
        await stage.run(5)
        told = await why(stage)
        assert told.answer == "chat cannot answer yet: 1 replica starting."
        assert any("has been starting for 5 s" in fact for fact in told.facts)

    async def test_ready(self, stage: Stage) -> None:
        await stage.declare(replicas=2)
        await stage.run(3)
        told = await why(stage)
        assert told.answer == "chat is ready: 2 replicas answer."
        assert told.facts[0] == "2 replicas wanted: min_replicas and max_replicas are both 2"
        assert "v1: 100 % of the traffic, 2 of 2 replicas ready" in told.facts
        assert told.commands == ()

    async def test_a_change_not_looked_at_yet(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        await stage.change(replicas=2)
        assert "has not been looked at yet" in (await why(stage)).answer

    async def test_replicas_that_fail_show_their_log(self, stage: Stage) -> None:
        stage.backend.failing.add("chat-v1")
        await stage.declare()
        await stage.run(9)
        told = await why(stage)
        assert told.answer.startswith("chat cannot answer: chat-v1-")
        assert "exit code 1" in told.answer
        assert told.log_tail[-1] == "ended with exit code 1"
        assert "argosy logs chat" in told.commands

    async def test_a_rollout_that_waits_for_room(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        stage.backend.capacity = 1
        await stage.change(model="two")
        await stage.run(2)
        told = await why(stage)
        assert told.answer == "chat answers while v2 takes over: from v1 to v2."
        assert any("waits for room" in fact for fact in told.facts)
        assert any("max_unavailable: 1" in command for command in told.commands)

    async def test_a_rolled_back_rollout(self, stage: Stage) -> None:
        await stage.declare(rollout=RolloutPolicy(progress_deadline_seconds=5.0))
        await stage.run(3)
        stage.backend.start_seconds = lambda workload: 1e6
        await stage.change(model="two")
        await stage.run(8)
        told = await why(stage)
        assert told.answer.startswith("chat answers with v1, because v2 failed: ")
        assert "argosy rollout undo chat" in told.commands

    async def test_a_promotion_says_what_it_waits_for(self, stage: Stage) -> None:
        stage.gateway = gateway = Gateway()
        await stage.declare(rollout=PROMOTED)
        await stage.run(3)
        await stage.change(model="two")
        await stage.run(2)
        gateway.serve("chat", "v2", 7)
        await stage.run(12)
        assert any("answered 7 of the 50 requests" in fact for fact in (await why(stage)).facts)

    async def test_a_sleeping_service_and_one_that_is_stopped(self, stage: Stage) -> None:
        stage.gateway = Gateway()
        await stage.declare(
            scaling=ScalingPolicy(min_replicas=0, max_replicas=1, scale_to_zero_after_seconds=5.0,
                                  scale_down_stabilization_seconds=1.0)
        )  # fmt: skip
        await stage.run(30)
        assert (await why(stage)).answer.startswith("chat sleeps")
        await stage.change(replicas=0)
        await stage.run(2)
        assert "argosy scale chat 1" in (await why(stage)).commands

    async def test_a_missing_gateway_and_a_held_number(self, stage: Stage) -> None:
        await stage.declare(scaling=ScalingPolicy(min_replicas=1, max_replicas=3))
        await stage.run(3)
        assert "No gateway reports, so the number of replicas is held." in (await why(stage)).facts

    async def test_a_replica_the_gateway_avoids(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        (status,) = await stage.backend.list()
        gateway = Gateway()
        gateway.replicas["chat"] = (ReplicaLoad(replica=status.replicas[0].name, revision="v1", is_ejected=True),)
        stage.loop.record_report("gateway", gateway.report(["chat"]))
        assert any("the gateway avoids it" in fact for fact in (await why(stage)).facts)

    async def test_of_all_failing_replicas_the_worst_is_shown(self, stage: Stage) -> None:
        await stage.declare(replicas=2)
        await stage.run(3)
        (status,) = await stage.backend.list()
        first, second = (each.name for each in status.replicas)
        stage.backend.crash("chat-v1", second)
        assert failing_replica(await stage.backend.list()) == ("chat-v1", second)
        assert first != second


class TestTop:
    async def test_rates_and_latencies_of_the_last_seconds(self, stage: Stage) -> None:
        stage.gateway = gateway = Gateway()
        await stage.declare()
        await stage.run(3)
        for _ in range(60):
            gateway.serve("chat", "v1", 5, ttft=0.1, tpot=0.02)
            await stage.run(0.25)
        top = await stage.loop.outlook.top()
        (row,) = top.services
        assert row.requests_per_second == pytest.approx(20, rel=0.15)
        assert row.generation_tokens_per_second == pytest.approx(1000, rel=0.15)
        assert row.ttft_p50_seconds == pytest.approx(0.09, rel=0.2)
        assert row.slo_good_ratio == 1.0
        assert [(each.revision, each.weight) for each in row.by_revision] == [("v1", 100)]
        (replica,) = top.replicas
        assert replica.generation_tokens_per_second == pytest.approx(1000, rel=0.15)
        assert (replica.num_requests_running, top.gateway_message) == (0, "")

    async def test_without_a_gateway_it_says_what_is_missing(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        top = await stage.loop.outlook.top()
        assert "argosy gateway" in top.gateway_message
        assert top.services[0].requests_per_second == 0.0
        assert top.replicas[0].num_requests_running is None

    async def test_the_parts_of_a_start_come_from_the_replica(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        (status,) = await stage.backend.list()
        report = ReplicaReport(epoch="x", phase="ready", start_seconds={"weights": 0.5})
        gateway = Gateway()
        gateway.replicas["chat"] = (ReplicaLoad(replica=status.replicas[0].name, revision="v1", report=report),)
        stage.loop.record_report("gateway", gateway.report(["chat"]))
        (view,) = stage.loop.outlook.replicas("chat")
        assert view.status.start_seconds == {"weights": 0.5}
        assert (await why(stage)).start_seconds == {view.status.name: {"weights": 0.5}}


class TestRoutes:
    async def test_only_ready_replicas_that_are_no_spares_are_endpoints(self, stage: Stage) -> None:
        await stage.declare(replicas=2, warm_spares=1)
        await stage.run(3)
        (status,) = await stage.backend.list()
        ready = [each.name for each in status.ready()]
        assert stage.endpoints() == {"v1": 2}
        stage.backend.hang("chat-v1", ready[0])
        await stage.run(0.25)
        (route,) = stage.loop.routes().services
        named = {each.replica for each in route.revisions[0].endpoints}
        assert ready[0] not in named
        assert len(named) == 2  # The spare took its place.
        assert all(each.phase is ReplicaPhase.READY for each in status.ready())

    async def test_adapters_are_names_of_the_service(self, stage: Stage) -> None:
        await stage.declare(template=RevisionTemplate(model="one", adapters={"polite": "/p", "brief": "/b"}))
        await stage.run(3)
        (route,) = stage.loop.routes().services
        assert route.names == ("chat", "brief", "polite")

    async def test_a_version_is_given_only_when_something_changed(self, stage: Stage) -> None:
        await stage.declare()
        await stage.run(3)
        before = stage.loop.routes()
        await stage.run(30)
        assert stage.loop.routes() == before
        await stage.change(replicas=2)
        await stage.run(3)
        after = stage.loop.routes()
        assert (after.epoch, after.version) == (before.epoch, before.version + 1)
        assert stage.control().routes().epoch != before.epoch

    async def test_the_policy_and_the_slo_go_along(self, stage: Stage) -> None:
        service = await stage.declare()
        policy = msgspec.structs.replace(service.spec.gateway, max_held=3)
        await stage.change(gateway=policy)
        await stage.run(1)
        assert stage.loop.routes().services[0].policy.max_held == 3
