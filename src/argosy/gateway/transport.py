"""How a request reaches a replica, as an interface: sockets in `upstream.py`, a model of a replica in simulations.

One question, one answer. Whoever holds an answer closes it, whatever happens: closing before the end is the abort.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from argosy.core.errors import ReplicaError

Headers = Sequence[tuple[bytes, bytes]]


class FailureKind(StrEnum):
    """What went wrong between us and a replica.

    connect: nobody took the connection, so nothing was started. refused: the replica said that it takes no requests.
    reset: the connection broke before the answer was whole. silent: no byte within the time allowed.
    invalid: what came is no HTTP, or no answer.
    """

    CONNECT = "connect"
    REFUSED = "refused"
    RESET = "reset"
    SILENT = "silent"
    INVALID = "invalid"


class ReplicaFailure(ReplicaError):
    """A replica did not answer as one should."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def may_have_started(self) -> bool:
        """Whether the replica may have worked on the request, and may have died of it."""
        return self.kind not in (FailureKind.CONNECT, FailureKind.REFUSED)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a replica. headers: besides those that every request of ours carries.

    silence_seconds: longest time without a byte of the answer; None = any, for answers that come whole.
    """

    method: bytes = b"POST"
    path: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    silence_seconds: float | None = None


class Answer(Protocol):
    """A replica's answer: its head is there, its body comes."""

    status: int
    headers: Headers

    async def read(self) -> bytes:
        """The next bytes of the body, as many as are there; b"" at its end.

        Cancels: nothing is lost; close to give up. Raises: ReplicaFailure.
        """
        ...

    def close(self) -> None:
        """Give the answer up: unless it was read to its end, the replica's connection is closed. Idempotent."""
        ...


class Transport(Protocol):
    """Asks replicas."""

    async def ask(self, address: str, question: Question) -> Answer:
        """Send, and return once the answer's head has come.

        Cancels: the replica's connection is closed. Raises: ReplicaFailure.
        """
        ...

    def give_up(self, address: str, reason: str) -> None:
        """Fail every question to this address that has no byte of an answer yet: the replica is silent."""
        ...

    def keep_only(self, addresses: frozenset[str]) -> None:
        """Close idle connections to anywhere else."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
