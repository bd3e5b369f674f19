"""A cloud under chance, many times: every request has one ending, and what runs becomes what is declared.

Each seed is one story on a virtual clock: requests come all the time while services are deployed, changed, scaled and
deleted, and (in the second test) replicas, gateway and control plane are killed, hung and cut off from each other.
"""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from sim_clients import ANSWERED, LOST
from sim_virtual_time import run_virtually
from sim_world import ANSWER_SECONDS, DRAIN_SECONDS, World

from argosy.core.errors import BackendError
from argosy.core.inference_service import InferenceService
from argosy.core.workload import REVISION_LABEL, SERVICE_LABEL, ReplicaPhase

CALM_SEEDS = range(12)
STORM_SEEDS = range(100, 124)
_REQUESTS_PER_SECOND = 8.0
_STORY_SECONDS = 90.0
_SETTLE_SECONDS = 150.0
_LONGEST_SECONDS = 60.0 + 1.0  # the deadline of every service, and a moment


@pytest.mark.parametrize("seed", CALM_SEEDS)
def test_f02_changes_and_restarts_of_the_control_plane_lose_repeat_and_cut_nothing(seed: int) -> None:
    async def story() -> None:
        world = World(seed)
        await world.start()
        await world.declare("chat", "one", 2, 2)
        await _until_served(world, "chat")
        asking = asyncio.create_task(_ask(world, ["chat"]))
        number = 0
        while world.loop.time() < _STORY_SECONDS:
            await asyncio.sleep(world.random.uniform(1.0, 12.0))
            number += 1
            match world.random.choice(("scale", "model", "control", "cut off")):
                case "scale":
                    replicas = world.random.randint(1, 5)
                    await world.declare("chat", "one", replicas, replicas)
                case "model":
                    await world.declare("chat", f"model-{number}", 2, 3)
                case "control":
                    await world.kill_control()
                    await asyncio.sleep(world.random.uniform(0.0, 5.0))
                    await world.start_control()
                case "cut off":
                    world.cut_off()
                    await asyncio.sleep(world.random.uniform(0.0, DRAIN_SECONDS / 4))
                    world.is_cut_off = False
        asking.cancel()
        await asyncio.wait([asking])
        await world.clients.finish()
        assert not world.clients.failures(), world.clients.failures()[:3]
        _check_work(world)
        await _check_settled(world)
        await world.stop()

    run_virtually(story())


@pytest.mark.parametrize("seed", STORM_SEEDS)
def test_f08_f12_every_request_has_one_ending_and_all_settles_after_the_storm(seed: int) -> None:
    async def story() -> None:
        world = World(seed)
        await world.start()
        await world.declare("chat", "one", 2, 4)
        await world.declare("idle", "one", 0, 2)
        await _until_served(world, "chat")
        asking = asyncio.create_task(_ask(world, ["chat", "chat", "chat", "idle"]))
        while world.loop.time() < _STORY_SECONDS:
            await asyncio.sleep(world.random.uniform(0.2, 6.0))
            await _misfortune(world)
        asking.cancel()
        await asyncio.wait([asking])
        await world.clients.finish()
        await _fair_weather(world)
        _check_endings(world)
        _check_work(world)
        await _check_settled(world)
        await _check_served(world)
        await world.stop()

    run_virtually(story())


async def _ask(world: World, services: list[str]) -> None:
    while True:
        world.clients.send(world.random.choice(services))
        await asyncio.sleep(world.random.expovariate(_REQUESTS_PER_SECOND))


async def _until_served(world: World, service: str) -> None:
    """Return once the gateway has routes to it."""
    async with asyncio.timeout(60):
        while True:
            gateway = world.gateway
            if gateway is not None and any(each.name == service and each.endpoints for each in gateway.services):
                return
            await asyncio.sleep(0.1)


async def _misfortune(world: World) -> None:
    """Something happens."""
    chance = world.random
    match chance.choice(("crash", "crash", "hang", "gateway", "control", "cut off", "backend", "spec", "delete")):
        case "crash":
            world.crash_any()
        case "hang":
            if chosen := world.any_replica():
                await _hang(world, *chosen, seconds=chance.uniform(0.5, 8.0))
        case "gateway":
            await world.kill_gateway()
            await asyncio.sleep(chance.uniform(0.0, 2.0))
            await world.start_gateway()
        case "control":
            await world.kill_control()
            await asyncio.sleep(chance.uniform(0.0, 8.0))
            await world.start_control()
        case "cut off":
            world.cut_off()
            await asyncio.sleep(chance.uniform(0.0, 8.0))
            world.is_cut_off = False
        case "backend":
            world.backend.faults = deque(
                BackendError("the API says 429 or 500, or the watch broke") for _ in range(chance.randint(1, 6))
            )
        case "spec":
            least = chance.randint(1, 3)
            await world.declare("chat", chance.choice(("one", "two")), least, least + chance.randint(0, 2))
        case "delete":
            await world.delete("idle")
            await asyncio.sleep(chance.uniform(0.0, 3.0))
            await world.declare("idle", "one", 0, 2)


async def _hang(world: World, workload: str, replica: str, seconds: float) -> None:
    """SIGSTOP: it takes connections and says nothing. The supervisor kills it if it lasts."""
    address = f"{replica}:80"
    world.replicas.hanging.add(address)
    await asyncio.sleep(seconds)
    row = world.backend._replicas.get(workload, {}).get(replica)
    if seconds > 4.0 and row is not None and row.status.phase is ReplicaPhase.READY:
        world.backend.crash(workload, replica)
        world.replicas.died(address)
    world.replicas.hanging.discard(address)
    world.replicas.give_up(address, "woken")


async def _fair_weather(world: World) -> None:
    """Everything that was broken is there again."""
    world.backend.faults.clear()
    world.is_cut_off = False
    world.replicas.hanging.clear()


def _check_endings(world: World) -> None:
    """Exactly one for each request, in bounded time."""
    clients = world.clients
    names = [ending.request for ending in clients.endings]
    assert len(names) == len(set(names)) == clients.num_sent
    slow = [each for each in clients.endings if each.at - each.began > _LONGEST_SECONDS]
    assert not slow, slow[:3]
    counted = clients.counted()
    assert counted[ANSWERED] > 0.5 * clients.num_sent, counted


def _check_work(world: World) -> None:
    """A request is begun twice at most, answered as a whole at most once, and not without being finished once."""
    repeated = [name for name, times in world.replicas.finished.items() if times > 1]
    assert not repeated, repeated[:3]
    hasty = {name: times for name, times in world.replicas.begun.items() if times > 2}
    assert not hasty, hasty
    answered = {each.request for each in world.clients.endings if each.how == ANSWERED}
    assert answered <= world.replicas.finished.keys()


async def _check_settled(world: World) -> None:
    """What runs is what is declared, and the gateway knows exactly that. Raises if it takes too long."""
    problem = "nothing was looked at"
    for _ in range(int(_SETTLE_SECONDS)):
        await asyncio.sleep(1.0)
        problem = await _difference(world)
        if not problem:
            return
    raise AssertionError(f"after {_SETTLE_SECONDS:.0f} s of fair weather: {problem}")


async def _difference(world: World) -> str:
    """What is not as declared, in words; "" if all is."""
    declared = {each.metadata.name: each for each in await world.store.list(InferenceService)}
    routed: dict[str, set[str]] = {}
    running: dict[str, set[str]] = {name: set() for name in declared}
    for status in await world.look():
        service = status.labels[SERVICE_LABEL]
        if service not in declared and status.replicas:
            return f"{status.name} runs, and its service is gone"
        for replica in status.replicas:
            if replica.phase is not ReplicaPhase.READY:
                return f"{replica.name} is {replica.phase.value}"
            running.setdefault(service, set()).add(f"{status.labels[REVISION_LABEL]} {replica.name}")
    for name, service in declared.items():
        least, most = service.spec.scaling.min_replicas, service.spec.scaling.max_replicas
        if not least <= len(running[name]) <= most:
            return f"{name} runs {len(running[name])} replicas, declared are {least} to {most}"
    assert world.gateway is not None
    for state in world.gateway.services:
        rows = {f"{each.endpoint.revision} {each.endpoint.replica}" for each in state.endpoints.values()}
        routed[state.name] = rows
    if routed != running:
        return f"the gateway routes {routed}, and there run {running}"
    return ""


async def _check_served(world: World) -> None:
    """Every service answers, one that sleeps included."""
    before = len(world.clients.endings)
    for service in ("chat", "idle"):
        for _ in range(3):
            world.clients.send(service)
    await world.clients.finish()
    last = world.clients.endings[before:]
    assert [each.how for each in last] == [ANSWERED] * 6, last
    assert max(each.at - each.began for each in last) < ANSWER_SECONDS + 30.0


def test_a_lost_connection_is_an_ending_of_its_own() -> None:
    """The checks above could not tell a request that vanished: so a gateway that is gone must show as LOST."""

    async def story() -> str:
        world = World(0)
        world.clients.send("chat")
        await world.clients.finish()
        return world.clients.endings[0].how

    assert run_virtually(story()) == LOST
