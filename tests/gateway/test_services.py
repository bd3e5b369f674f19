"""Route tables come and go; what the gateway learnt, and who waits, outlives them as it should."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from scripted import eventually, route

from argosy.core.errors import InvalidRequest, ModelNotFound, Overloaded, Unavailable
from argosy.core.inference_service import CachePolicy, GatewayPolicy
from argosy.core.routing import Endpoint, RouteTable, ServiceRoute
from argosy.core.scaling import Slo
from argosy.gateway.hold import HoldLine
from argosy.gateway.services import Services


def endpoint(name: str, address: str = "127.0.0.1:1", revision: str = "v1") -> Endpoint:
    return Endpoint(replica=name, address=address, revision=revision)


def services_of(*routes: ServiceRoute) -> Services:
    services = Services(lambda: None)
    assert services.update(table(1, *routes), 0.0)
    return services


def table(version: int, *routes: ServiceRoute, epoch: str = "e") -> RouteTable:
    return RouteTable(epoch=epoch, version=version, services=routes)


def test_a_replica_that_stays_keeps_what_is_known_of_it() -> None:
    services = services_of(route(endpoint("a"), endpoint("b")))
    known = services.find("chat").endpoints
    services.update(table(2, route(endpoint("b", revision="v1"), endpoint("c"))), 0.0)
    now = services.find("chat").endpoints
    assert list(now) == ["b", "c"]
    assert now["b"] is known["b"]


def test_a_replica_with_another_address_is_another() -> None:
    services = services_of(route(endpoint("a")))
    known = services.find("chat").endpoints["a"]
    services.update(table(2, route(endpoint("a", "127.0.0.1:2"))), 0.0)
    assert services.find("chat").endpoints["a"] is not known


@pytest.mark.parametrize(
    ("version", "epoch", "is_taken"), [(0, "e", False), (1, "e", False), (2, "e", True), (0, "other", True)]
)
def test_f12_only_newer_tables_or_those_of_another_run_are_followed(version, epoch, is_taken) -> None:
    services = services_of(route(endpoint("a")))
    assert services.update(table(version, epoch=epoch), 0.0) == is_taken
    assert (list(services) == []) == is_taken


def test_counts_of_a_service_that_comes_back_go_on() -> None:
    services = services_of(route(endpoint("a")))
    services.find("chat").arrivals = 7
    services.update(table(2), 0.0)
    with pytest.raises(ModelNotFound):
        services.find("chat")
    services.update(table(3, route(endpoint("b"))), 0.0)
    assert services.find("chat").arrivals == 7
    assert list(services.find("chat").endpoints) == ["b"]


def test_names_are_found_and_others_listed() -> None:
    chat = ServiceRoute(service="chat", names=("chat", "chat-fr"))
    services = services_of(chat, ServiceRoute(service="code", names=("code",)))
    assert services.find("chat-fr").name == "chat"
    with pytest.raises(ModelNotFound, match=r"Did you mean 'code'\? This gateway has: chat, chat-fr, code\."):
        services.find("coed")
    with pytest.raises(ModelNotFound, match=r"x{93}\.\.\."):
        services.find("x" * 5000)
    with pytest.raises(InvalidRequest, match="2 services: name one of chat, chat-fr, code"):
        services.find("")
    assert services_of(chat).find("").name == "chat"


def test_a_name_that_two_services_claim_belongs_to_the_service_it_names() -> None:
    services = services_of(
        ServiceRoute(service="a", names=("a", "b")),
        ServiceRoute(service="b", names=("b",)),
        ServiceRoute(service="c", names=("c", "a")),
    )
    assert [services.find(name).name for name in ("a", "b", "c")] == ["a", "b", "c"]


def test_d32_a_cache_lives_as_long_as_its_policy() -> None:
    services = services_of(route(endpoint("a"), cache=CachePolicy()))
    kept = services.find("chat").cache
    assert kept is not None
    services.update(table(2, route(endpoint("b"), cache=CachePolicy())), 0.0)
    assert services.find("chat").cache is kept
    services.update(table(3, route(endpoint("b"), cache=CachePolicy(ttl_seconds=1))), 0.0)
    assert services.find("chat").cache is not kept
    services.update(table(4, route(endpoint("b"))), 0.0)
    assert services.find("chat").cache is None


@pytest.mark.anyio
async def test_who_waits_for_a_deleted_service_is_told() -> None:
    services = services_of(route())
    waiting = asyncio.ensure_future(services.find("chat").line.wait(GatewayPolicy(), 0.0))
    await eventually(lambda: len(services.find("chat").line))
    services.update(table(2), 0.0)
    with pytest.raises(ModelNotFound, match="was deleted"):
        await waiting


# --- the line


class Waiters:
    """Requests in a line, by number."""

    def __init__(self, line: HoldLine, policy: GatewayPolicy) -> None:
        self.line, self.policy = line, policy
        self.through: list[Any] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def join(self, name: Any, waited_seconds: float = 0.0) -> None:
        async def wait() -> None:
            await self.line.wait(self.policy, waited_seconds)
            self.through.append(name)

        before = len(self.line)
        self.tasks.append(asyncio.ensure_future(wait()))
        await eventually(lambda: len(self.line) == before + 1)


@pytest.mark.anyio
async def test_f14_first_come_first_served_and_who_had_its_turn_has_it_again() -> None:
    woken: list[None] = []
    waiters = Waiters(HoldLine("chat", lambda: woken.append(None)), GatewayPolicy())
    for name in (1, 2, 3):
        await waiters.join(name)
    await waiters.join("again", waited_seconds=0.5)
    waiters.line.admit(2)
    await asyncio.gather(*(waiters.tasks[index] for index in (0, 3)))
    assert waiters.through == ["again", 1]
    waiters.line.admit(0)
    assert len(waiters.line) == 2
    waiters.line.admit(5)
    await asyncio.gather(*waiters.tasks)
    assert waiters.through == ["again", 1, 2, 3]
    assert (len(woken), waiters.line.num_admitted) == (1, 0)


@pytest.mark.anyio
async def test_room_is_not_given_twice() -> None:
    waiters = Waiters(HoldLine("chat", lambda: None), GatewayPolicy())
    for name in range(4):
        await waiters.join(name)
    waiters.line.admit(2)
    waiters.line.admit(2)  # the same room, before those two have begun
    assert len(waiters.line) == 2
    waiters.line.dismiss(Unavailable("gone", retry_after_seconds=1.0))
    await asyncio.wait(waiters.tasks)
    assert [task.exception() is None for task in waiters.tasks] == [True, True, False, False]


@pytest.mark.anyio
async def test_f07_bounds() -> None:
    waiters = Waiters(HoldLine("chat", lambda: None), GatewayPolicy(max_held=1, hold_seconds=0.05))
    await waiters.join(1)
    with pytest.raises(Overloaded, match="1 requests wait"):
        await waiters.line.wait(waiters.policy, 0.0)
    with pytest.raises(Unavailable, match=r"within 0\.05 s: ask `argosy why chat`"):
        await waiters.tasks[0]
    assert len(waiters.line) == 0


@pytest.mark.anyio
async def test_who_leaves_just_as_its_turn_comes_takes_no_room_along() -> None:
    waiters = Waiters(HoldLine("chat", lambda: None), GatewayPolicy())
    await waiters.join(1)
    waiters.line.admit(1)
    waiters.tasks[0].cancel()
    await asyncio.wait(waiters.tasks)
    assert waiters.line.num_admitted == 0


def test_d32_a_service_made_anew_under_its_old_name_does_not_give_the_old_ones_answers() -> None:
    first = msgspec.structs.replace(route(endpoint("a"), cache=CachePolicy()), created=1)
    services = services_of(first)
    kept = services.find("chat").cache
    services.update(table(2, msgspec.structs.replace(first, slo=Slo(ttft_seconds=9.0))), 0.0)
    assert services.find("chat").cache is kept
    services.update(table(3, msgspec.structs.replace(first, created=2)), 0.0)  # its deletion was never seen
    renewed = services.find("chat").cache
    assert renewed is not None
    assert renewed is not kept
    gone = services.find("chat")
    services.update(table(4), 0.0)
    assert gone.cache is None


@pytest.mark.anyio
async def test_f14_only_the_first_in_line_wakes_and_those_without_weight_do_not_move_it() -> None:
    wakes: list[int] = []
    services = Services(lambda: wakes.append(1))
    split = route(endpoint("a"), endpoint("b", revision="v2"))
    weights = {"v1": 100, "v2": 0}
    services.update(
        table(
            1,
            msgspec.structs.replace(
                split,
                revisions=tuple(
                    msgspec.structs.replace(each, weight=weights[each.revision]) for each in split.revisions
                ),
            ),
        ),
        0.0,
    )
    service = services.find("chat")
    service.endpoints["a"].is_reachable = False
    waiting = asyncio.ensure_future(service.line.wait(GatewayPolicy(), 0.0))
    await asyncio.sleep(0)
    services.tick(0.0)
    await asyncio.sleep(0)
    assert (len(service.line), not waiting.done(), wakes) == (1, True, [1])
    service.endpoints["a"].is_reachable = True
    services.tick(0.0)
    await waiting
    again = asyncio.ensure_future(service.line.wait(GatewayPolicy(), 1.0))
    await asyncio.sleep(0)
    assert (len(service.line), wakes) == (1, [1])
    again.cancel()
    await asyncio.wait([again])


def test_d35_revisions_that_are_long_gone_leave_the_reports() -> None:
    services = services_of(route(endpoint("a", revision="v1")))
    service = services.find("chat")
    service.counters("v1").in_flight = 1
    for number in range(2, 100):
        services.update(table(number, route(endpoint("a", revision=f"v{number}"))), 0.0)
        service.counters(f"v{number}")
    told = [each.revision for each in service.report(0.0).revisions]
    assert len(told) <= 40
    assert {"v1", "v98", "v99"} < set(told)  # one still answers, one has just left, one runs
