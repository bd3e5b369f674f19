"""Dispatch without sockets: replicas that fail by chance, a clock of the test's own, and what must always hold."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import eventually, route

from argosy.core.errors import ArgosyError
from argosy.core.inference_service import ShadowPolicy
from argosy.core.load_report import ReplicaReport
from argosy.core.prefix import PromptPrefix
from argosy.core.routing import Endpoint
from argosy.gateway.attempt import Attempt
from argosy.gateway.call import Call, Caller
from argosy.gateway.dispatch import Dispatcher
from argosy.gateway.endpoints import DEFAULT_MAX_NUM_SEQS
from argosy.gateway.services import ServiceState
from argosy.gateway.shadow import Shadows
from argosy.gateway.transport import Answer, FailureKind, Headers, Question, ReplicaFailure

OUTCOMES = ("good", "connect", "refused", "reset", "silent", "invalid", "full", "broken later", "error")


class FakeAnswer:
    """An answer that is there at once."""

    def __init__(self, status: int, headers: Headers = (), breaks: bool = False) -> None:
        self.status, self.headers = status, headers
        self.breaks = breaks
        self.num_closed = 0

    async def read(self) -> bytes:
        return b""

    def close(self) -> None:
        self.num_closed += 1


class FakeReplicas:
    """A transport whose replicas do what their outcome says, one loop turn later."""

    def __init__(self, outcomes: Sequence[str]) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[str] = []
        self.answers: list[FakeAnswer] = []
        self.failing: set[str] = set()
        self.running: Counter[str] = Counter()
        self.most_running: Counter[str] = Counter()

    async def ask(self, address: str, question: Question) -> Answer:
        self.asked.append(address)
        self.running[address] += 1
        self.most_running[address] = max(self.running[address], self.most_running[address])
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        finally:
            self.running[address] -= 1
        outcome = "reset" if address in self.failing else self.outcomes.pop(0) if self.outcomes else "good"
        if outcome in ("connect", "reset", "silent", "invalid"):
            raise ReplicaFailure(FailureKind(outcome), outcome)
        answer = {
            "good": FakeAnswer(200),
            "refused": FakeAnswer(503, [(b"connection", b"close")]),
            "full": FakeAnswer(429),
            "broken later": FakeAnswer(200, breaks=True),
            "error": FakeAnswer(500),
        }[outcome]
        self.answers.append(answer)
        return answer

    def give_up(self, address: str, reason: str) -> None:
        """Nothing is ever silent for long here."""

    def keep_only(self, addresses: frozenset[str]) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is open."""


class Client:
    """Takes an answer; counts its endings."""

    def __init__(self) -> None:
        self.has_started = False
        self.is_late = False
        self.endings: list[str] = []

    def asked(self, attempt: Attempt) -> None:
        assert not self.has_started

    async def deliver(self, answer: Answer, attempt: Attempt) -> None:
        assert isinstance(answer, FakeAnswer)
        assert not self.has_started
        self.has_started = True
        if answer.breaks:
            raise ReplicaFailure(FailureKind.RESET, "broken later")
        if answer.status == 429:
            attempt.overloaded(0.0, is_final=True)
        elif answer.status == 500:
            attempt.failed(ReplicaFailure(FailureKind.RESET, "500"), 0.0)
        else:
            attempt.answered(0.0)
        self.endings.append(str(answer.status))


def service_of(count: int, **policy: object) -> ServiceState:
    endpoints = [Endpoint(replica=f"r{index}", address=f"r{index}", revision="v1") for index in range(count)]
    return ServiceState(route(*endpoints, **policy), lambda: None)


def call_of(service: ServiceState) -> Call:
    prefix = PromptPrefix(model="chat", blocks=(1, 2, 3), prompt_bytes=800)
    return Call(service=service, path="/x", body=b"{}", prefix=prefix, caller=Caller(), arrived_at=0.0)


async def one(dispatcher: Dispatcher, service: ServiceState) -> Client:
    client = Client()
    try:
        await dispatcher.run(call_of(service), client)
    except ArgosyError as error:
        client.endings.append(error.code)
    return client


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(OUTCOMES), max_size=40), st.integers(1, 5), st.integers(1, 12), st.integers(0, 999))
def test_f08_every_call_has_one_ending_and_leaves_nothing_behind(outcomes, count, calls, seed) -> None:
    service, transport = service_of(count, hold_seconds=0.0), FakeReplicas(outcomes)
    dispatcher = Dispatcher(transport, lambda: 1.0, random.Random(seed).random)

    async def play() -> list[Client]:
        return await asyncio.gather(*(one(dispatcher, service) for _ in range(calls)))

    clients = asyncio.run(play())
    assert all(len(client.endings) == 1 for client in clients)
    for state in service.endpoints.values():
        assert (state.in_flight, state.pending_prompt_tokens) == (0, 0)
    counters = service.counters("v1")
    assert (counters.in_flight, len(service.line), service.line.num_admitted) == (0, 0, 0)
    assert counters.errors <= counters.completions <= counters.requests
    assert all(answer.num_closed == 1 for answer in transport.answers)
    assert len(transport.asked) <= calls + service.retries


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("outcomes", "asked", "ending", "errors"),
    [
        (["good"], 1, "200", 0),
        (["connect", "connect", "connect", "good"], 4, "200", 0),
        (["refused", "good"], 2, "200", 0),
        (["reset", "good"], 2, "200", 1),
        (["reset", "reset", "good"], 2, "replica_error", 2),
        (["silent", "connect", "good"], 3, "200", 1),
        (["full", "full", "good"], 3, "200", 0),
        (["full", "full", "full", "good"], 3, "429", 1),
        (["error", "good"], 1, "500", 1),
        (["broken later", "good"], 1, "replica_error", 1),
        (["connect"] * 4, 4, "unavailable", 0),
    ],
)
async def test_f03_what_is_tried_again_and_how_often(outcomes, asked, ending, errors) -> None:
    service, transport = service_of(4, hold_seconds=0.0), FakeReplicas(outcomes)
    client = await one(Dispatcher(transport, lambda: 1.0, random.Random(1).random), service)
    assert client.endings == [ending]
    assert len(transport.asked) == len(set(transport.asked)) == asked  # never one replica twice
    assert service.counters("v1").errors == errors


@pytest.mark.anyio
async def test_a_cancelled_call_leaves_nothing_and_says_nothing_about_the_replica() -> None:
    service, transport = service_of(1), FakeReplicas([])
    running = asyncio.ensure_future(one(Dispatcher(transport, lambda: 1.0, lambda: 0.0), service))
    await asyncio.sleep(0)
    assert service.endpoints["r0"].in_flight == 1
    running.cancel()
    await asyncio.wait([running])
    state = service.endpoints["r0"]
    assert (state.in_flight, state.pending_prompt_tokens, state.health.requests) == (0, 0, 0)
    assert service.counters("v1").requests == 0


@pytest.mark.anyio
async def test_f14_a_line_moves_as_fast_as_the_new_replica_has_room() -> None:
    service, transport = service_of(1), FakeReplicas([])
    state = service.endpoints["r0"]
    state.is_reachable = False
    dispatcher = Dispatcher(transport, lambda: 1.0, lambda: 0.0)
    crowd = [asyncio.ensure_future(one(dispatcher, service)) for _ in range(100)]
    await eventually(lambda: len(service.line) == 100)
    state.heard(ReplicaReport(epoch="e", phase="ready", max_num_seqs=3), 1.0)
    service.admit(1.0)
    assert {tuple((await each).endings) for each in crowd} == {("200",)}
    assert transport.most_running["r0"] == 6


@pytest.mark.anyio
async def test_f14_without_a_report_a_replica_gets_a_usual_share() -> None:
    service, transport = service_of(1), FakeReplicas([])
    service.endpoints["r0"].is_reachable = False
    dispatcher = Dispatcher(transport, lambda: 1.0, lambda: 0.0)
    crowd = [asyncio.ensure_future(one(dispatcher, service)) for _ in range(100)]
    await eventually(lambda: len(service.line) == 100)
    service.endpoints["r0"].heard(None, 1.0)
    service.admit(1.0)
    await asyncio.gather(*crowd)
    assert transport.most_running["r0"] == 2 * DEFAULT_MAX_NUM_SEQS


@pytest.mark.anyio
async def test_f08_a_prefixs_holder_that_fails_does_not_keep_its_callers() -> None:
    service, transport = service_of(3), FakeReplicas([])
    dispatcher = Dispatcher(transport, lambda: 1.0, random.Random(2).random)
    await one(dispatcher, service)
    holder = transport.asked[0]
    transport.failing = {holder}
    assert {tuple((await one(dispatcher, service)).endings) for _ in range(10)} == {("200",)}
    assert 1 < transport.asked.count(holder) <= 4


@pytest.mark.anyio
async def test_who_asks_for_one_revision_does_not_wait_behind_those_for_others() -> None:
    service, transport = service_of(1), FakeReplicas([])
    service.endpoints["r0"].is_reachable = False
    dispatcher = Dispatcher(transport, lambda: 1.0, lambda: 0.0)
    held = asyncio.ensure_future(one(dispatcher, service))
    await eventually(lambda: len(service.line) == 1)
    service.endpoints["r0"].heard(None, 1.0)
    client = Client()
    await dispatcher.run(msgspec.structs.replace(call_of(service), revision="v1"), client)
    assert client.endings == ["200"]
    assert (await held).endings == ["200"]


@pytest.mark.anyio
async def test_a_copy_that_breaks_ends_nothing_but_itself() -> None:
    class Broken(FakeReplicas):
        async def ask(self, address: str, question: Question) -> Answer:
            raise RuntimeError("a mistake of ours")

    service = service_of(1, shadow=ShadowPolicy(revision="v1", percent=100))
    shadows = Shadows(Dispatcher(Broken([]), lambda: 1.0, lambda: 0.0), lambda: 1.0, lambda: 0.0)
    running = asyncio.ensure_future(shadows.run())
    await asyncio.sleep(0)
    shadows.offer(call_of(service))
    assert shadows.in_flight == 1
    await eventually(lambda: shadows.in_flight == 0)
    await asyncio.wait([running], timeout=0.05)
    assert not running.done()
    assert service.endpoints["r0"].in_flight == 0
    running.cancel()
    await asyncio.wait([running])
