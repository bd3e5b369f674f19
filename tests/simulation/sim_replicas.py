"""Replicas as a gateway's transport sees them: they answer, drain, hang and die, and remember what they worked on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import msgspec

from argosy.core.load_report import REPLICA_REPORT_PATH, ReplicaReport
from argosy.core.workload import ReplicaPhase
from argosy.gateway.transport import FailureKind, Headers, Question, ReplicaFailure

NUM_PIECES = 6
_MAX_PIECE_SECONDS = 0.6
_PHASES = {ReplicaPhase.READY: "ready", ReplicaPhase.DRAINING: "draining", ReplicaPhase.UNREADY: "ready"}


class Replicas:
    """Implements `gateway.transport.Transport`. `hanging`: addresses that take questions and say nothing."""

    def __init__(self, chance: random.Random, phase_of: Callable[[str], ReplicaPhase | None]) -> None:
        self._random = chance
        self._phase_of = phase_of
        self.hanging: set[str] = set()
        self.begun: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self._open: dict[str, set[_Answer]] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    async def ask(self, address: str, question: Question) -> _Answer:
        """A network hop, then the replica's head."""
        await asyncio.sleep(self._random.uniform(0.0005, 0.003))
        if address in self.hanging:
            await self._silence(address)
        phase = self._phase_of(address)
        if phase is None or phase not in _PHASES:
            raise ReplicaFailure(FailureKind.CONNECT, f"{address} takes no connection")
        if question.path.startswith(REPLICA_REPORT_PATH.encode()):
            running = len(self._open.get(address, ()))
            report = ReplicaReport(epoch=address, phase=_PHASES[phase], num_requests_running=running, max_num_seqs=32)
            return _Answer(self, address, "", [msgspec.json.encode(report)], 0.0)
        if phase is ReplicaPhase.DRAINING:
            return _Answer(self, address, "", [b"{}"], 0.0, status=503, headers=[(b"connection", b"close")])
        request = msgspec.json.decode(question.body)["messages"][0]["content"]
        self.begun[request] += 1
        await asyncio.sleep(self._random.uniform(0.01, _MAX_PIECE_SECONDS))
        if self._phase_of(address) is None:
            raise ReplicaFailure(FailureKind.RESET, f"{address} died")
        answer = _Answer(self, address, request, pieces_of(request), self._random.uniform(0.0, _MAX_PIECE_SECONDS))
        self._open.setdefault(address, set()).add(answer)
        return answer

    def is_there(self, address: str) -> bool:
        """Whether a process still listens there."""
        return self._phase_of(address) is not None

    async def _silence(self, address: str) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, set()).add(waiting)
        await waiting

    def died(self, address: str) -> None:
        """Its process is gone: every connection breaks."""
        for answer in self._open.pop(address, set()):
            answer.is_broken = True
        self.give_up(address, "reset")
        self.hanging.discard(address)

    def give_up(self, address: str, reason: str) -> None:
        for waiting in self._waiting.pop(address, set()):
            if not waiting.done():
                waiting.set_exception(ReplicaFailure(FailureKind.SILENT, reason))

    def keep_only(self, addresses: frozenset[str]) -> None:
        """No connection is kept."""

    async def close(self) -> None:
        """Nothing is open between questions."""

    def closed(self, answer: _Answer) -> None:
        self._open.get(answer.address, set()).discard(answer)


class _Answer:
    """Pieces, one after another."""

    def __init__(
        self,
        replicas: Replicas,
        address: str,
        request: str,
        pieces: list[bytes],
        piece_seconds: float,
        *,
        status: int = 200,
        headers: Headers = (),
    ) -> None:
        self.status = status
        kind = b"text/event-stream" if request else b"application/json"
        self.headers: Headers = [*headers, (b"content-type", kind)]
        self.address, self.is_broken = address, False
        self._replicas, self._request = replicas, request
        self._pieces, self._piece_seconds = pieces, piece_seconds

    async def read(self) -> bytes:
        if self.is_broken:
            raise ReplicaFailure(FailureKind.RESET, f"{self.address} died")
        if not self._pieces:
            return b""
        await asyncio.sleep(self._piece_seconds)
        if self.is_broken or not self._replicas.is_there(self.address):
            raise ReplicaFailure(FailureKind.RESET, f"{self.address} died")
        piece = self._pieces.pop(0)
        if not self._pieces and self._request:
            self._replicas.finished[self._request] += 1
        return piece

    def close(self) -> None:
        self._replicas.closed(self)


def pieces_of(request: str) -> list[bytes]:
    """The events of an answer; each names the request and its number, so that none can be lost, doubled or foreign."""
    texts = [f"{request}/{number}" for number in range(NUM_PIECES)]
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return [b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks] + [b"data: [DONE]\n\n"]
