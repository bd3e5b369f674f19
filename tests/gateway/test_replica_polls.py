"""What is learnt of a replica by asking it, without sockets: facts about its life, its load, its cache."""

from __future__ import annotations

import msgspec
import pytest
from scripted import route

from argosy.core.load_report import PrefixChanges, ReplicaReport
from argosy.core.routing import Endpoint, RouteTable
from argosy.gateway.endpoints import EndpointState
from argosy.gateway.replica_polls import SILENCE_SECONDS, ReplicaPolls
from argosy.gateway.services import Services, ServiceState
from argosy.gateway.transport import Answer, FailureKind, Question, ReplicaFailure

pytestmark = pytest.mark.anyio
READY = ReplicaReport(epoch="one", phase="ready", max_num_seqs=8)


class OneAnswer:
    """A body that comes in two pieces."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.headers = status, ()
        self._pieces = [body[:5], body[5:]]
        self.is_closed = False

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def close(self) -> None:
        self.is_closed = True


class Replica:
    """A transport to one replica that answers, or fails, as told; and a clock beside it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reply: bytes | ReplicaFailure = b""
        self.status = 200
        self.paths: list[bytes] = []
        self.given_up: list[str] = []
        self.services = Services(lambda: None)
        endpoint = Endpoint(replica="a", address="a:1", revision="v1")
        self.services.update(RouteTable(epoch="e", version=1, services=(route(endpoint),)), self.now)
        self.polls = ReplicaPolls(self.services, self, lambda: self.now, 0.25)

    @property
    def service(self) -> ServiceState:
        return self.services.find("chat")

    @property
    def state(self) -> EndpointState:
        return self.service.endpoints["a"]

    async def says(self, reply: ReplicaReport | bytes | ReplicaFailure, status: int = 200) -> None:
        self.reply = msgspec.json.encode(reply) if isinstance(reply, ReplicaReport) else reply
        self.status = status
        await self.polls.ask(self.service, self.state)

    async def ask(self, address: str, question: Question) -> Answer:
        self.paths.append(question.path)
        if isinstance(self.reply, ReplicaFailure):
            raise self.reply
        return OneAnswer(self.status, self.reply)

    def give_up(self, address: str, reason: str) -> None:
        self.given_up.append(address)

    def keep_only(self, addresses: frozenset[str]) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is open."""


async def test_load_and_cache_are_known_and_the_next_question_asks_for_what_is_new() -> None:
    replica = Replica()
    await replica.says(msgspec.structs.replace(READY, prefix=PrefixChanges(sequence=7, added=(11, 12))))
    await replica.says(
        msgspec.structs.replace(READY, prefix=PrefixChanges(sequence=9, is_whole=False, added=(13,), removed=(12,)))
    )
    assert replica.paths == [b"/replica/state?since=0", b"/replica/state?since=7"]
    assert [replica.service.prefixes.held_blocks("a", blocks) for blocks in ((11, 12), (13,), (12,))] == [1, 1, 0]
    assert replica.state.load(0).max_num_seqs == 8
    assert replica.state.report == READY  # the control plane is not told every block


async def test_a_replica_that_began_anew_holds_nothing() -> None:
    replica = Replica()
    await replica.says(msgspec.structs.replace(READY, prefix=PrefixChanges(sequence=7, added=(11, 12))))
    await replica.says(
        msgspec.structs.replace(READY, epoch="two", prefix=PrefixChanges(sequence=8, is_whole=False, added=(13,)))
    )
    assert replica.service.prefixes.held_blocks("a", (11, 12)) == 0


@pytest.mark.parametrize("phase", ["starting", "draining", "dead"])
async def test_f02_a_replica_that_says_it_takes_no_requests_gets_none(phase) -> None:
    replica = Replica()
    await replica.says(msgspec.structs.replace(READY, phase=phase))
    assert not replica.state.is_usable(replica.now)
    await replica.says(READY)
    assert replica.state.is_usable(replica.now)


@pytest.mark.parametrize(
    ("reply", "status"),
    [(b"", 404), (b"{}", 200), (b"<html>", 200), (b"[" * 100_000, 200), (b'{"epoch":5}', 200), (b"\xff\xfe", 200)],
)
async def test_f15_an_answer_we_cannot_read_is_still_an_answer(reply, status) -> None:
    replica = Replica()
    await replica.says(READY)
    await replica.says(reply, status)
    assert replica.state.is_usable(replica.now)
    assert replica.state.report == READY


async def test_f08_nobody_there_is_out_at_once_and_back_with_the_first_answer() -> None:
    replica = Replica()
    await replica.says(READY)
    await replica.says(ReplicaFailure(FailureKind.CONNECT, "refused"))
    assert not replica.state.is_usable(replica.now)
    assert replica.given_up == []
    await replica.says(READY)
    assert replica.state.is_usable(replica.now)


async def test_f04_f08_silence_counts_from_the_last_answer() -> None:
    replica = Replica()
    await replica.says(READY)
    for waited, is_usable in ((SILENCE_SECONDS - 0.1, True), (SILENCE_SECONDS + 0.1, False)):
        replica.now = 100.0 + waited
        await replica.says(ReplicaFailure(FailureKind.SILENT, "nothing"))
        assert replica.state.is_usable(replica.now) == is_usable
    assert replica.given_up == ["a:1"]


async def test_f11_a_clock_that_goes_back_makes_nobody_silent() -> None:
    replica = Replica()
    await replica.says(READY)
    replica.now = -3600.0
    await replica.says(ReplicaFailure(FailureKind.SILENT, "nothing"))
    assert replica.state.is_usable(replica.now)
    assert replica.state.to_replica_load(replica.now).reported_seconds_ago == 0.0


async def test_f14_the_answer_of_a_new_replica_moves_the_line() -> None:
    replica = Replica()
    replica.state.is_reachable = False
    moved: list[float] = []
    replica.service.admit = moved.append  # type: ignore[method-assign]
    await replica.says(READY)
    await replica.says(READY)
    assert moved == [100.0]
