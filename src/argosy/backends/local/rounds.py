"""One round of questions to a replica: readiness, and liveness where readiness was refused."""

from __future__ import annotations

import time
from contextlib import suppress

import msgspec

from argosy.backends.local import health
from argosy.backends.local.health import Answers, Health
from argosy.backends.local.ports import HOST
from argosy.backends.local.probe import Answer, ask
from argosy.core.workload import Workload


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered. start_seconds: the parts of its start, if the replica told them with its readiness."""

    answers: Answers
    start_seconds: dict[str, float] | None = None


class _Readiness(msgspec.Struct, frozen=True):
    """What we read of a replica's answer to the readiness probe."""

    start_seconds: dict[str, float] = {}


async def ask_round(workload: Workload, port: int, state: Health) -> Round:
    """Ask the replica at `port` how it is. Cancels: the connection is closed."""
    address = (HOST, port)
    allowed = health.probe_seconds(state, workload.readiness, workload, time.monotonic())
    ready = await ask(address, workload.readiness.path, allowed)
    live = None
    if state.has_been_ready and (ready is None or ready.status != 200):
        seconds = health.probe_seconds(state, workload.liveness, workload, time.monotonic())
        live = await ask(address, workload.liveness.path, seconds)
        allowed += seconds
    return Round(
        answers=Answers(ready=_is_good(ready), live=_is_good(live), allowed_seconds=allowed),
        start_seconds=_start_seconds(ready) if _is_good(ready) else None,
    )


def _is_good(answer: Answer | None) -> bool | None:
    return None if answer is None else answer.status == 200


def _start_seconds(answer: Answer | None) -> dict[str, float] | None:
    """A replica of ours tells in its readiness what its start consisted of; others say something else."""
    if answer is not None:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(answer.body, type=_Readiness).start_seconds
    return None
