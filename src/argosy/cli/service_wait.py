"""Waiting for a service in a terminal: each transition as a line, and an end that says what to do next."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from argosy.cli.service_tables import ready_message, traffic_text
from argosy.cli.terminal import note
from argosy.client.control_client import ControlClient
from argosy.core.errors import ArgosyError, DeadlineExceeded
from argosy.core.inference_service import InferenceService, RolloutPhase, ServicePhase

_OVER = frozenset({RolloutPhase.STABLE, RolloutPhase.ROLLED_BACK, RolloutPhase.PAUSED})


async def wait_until_ready(client: ControlClient, service: InferenceService, wait_seconds: float) -> InferenceService:
    """Show each transition until the service is ready, or idle.

    Cancels: the service goes on without us. Raises: DeadlineExceeded; ArgosyError with the reason of a failure.
    """
    name, last = service.metadata.name, ""
    try:
        async with aclosing(client.wait_ready(name, timeout_seconds=wait_seconds)) as states:
            async for service in states:
                line = transition_line(service)
                if line != last:
                    note(line)
                last = line
    except asyncio.CancelledError:
        note(f"{name} goes on without us: argosy get {name} --watch · to end it: argosy delete {name}")
        raise
    except DeadlineExceeded as exc:
        if service.status.rollout.phase is RolloutPhase.PROMOTING:
            raise DeadlineExceeded(
                f"{name} serves, and its promotion goes on after {wait_seconds:g} s: follow it with "
                f"`argosy rollout status {name}`"
            ) from exc
        raise DeadlineExceeded(f"{exc.message}: argosy why {name}") from exc
    if service.status.rollout.phase is RolloutPhase.ROLLED_BACK:
        raise ArgosyError(f"{name} was {rollout_line(service)}: see `argosy why {name}`")
    if service.status.phase is ServicePhase.FAILED:
        await _tell_failure(client, name)
    return service


async def _tell_failure(client: ControlClient, name: str) -> None:
    why = await client.why(name)
    for line in why.log_tail:
        note(f"  | {line}")
    raise ArgosyError(f"{name} failed: {why.answer.rstrip('.')}: see `argosy why {name}` and `argosy logs {name}`")


def transition_line(service: InferenceService) -> str:
    """Where a service is on its way, in one line."""
    status = service.status
    parts = [f"{status.phase.value:12}{status.ready_replicas}/{status.desired_replicas} ready"]
    if sum(each.weight > 0 for each in status.revisions) > 1:
        parts.append(traffic_text(service))
    is_taking_over = status.rollout.stable and status.rollout.phase not in _OVER
    if message := status.rollout.message if is_taking_over else ready_message(service):
        parts.append(message)
    return "  ".join(parts)


def is_over(service: InferenceService) -> bool:
    """Whether the rollout of the spec as it is now has ended, well or not."""
    is_seen = service.status.observed_generation >= service.metadata.generation
    return is_seen and service.status.rollout.phase in _OVER


def rollout_line(service: InferenceService) -> str:
    """Where a rollout is, in one line."""
    rollout = service.status.rollout
    revision = rollout.target or rollout.stable or "no revision yet"
    phase = rollout.phase.value.replace("_", " ")
    return f"{phase}: {revision}, traffic {traffic_text(service)}. {rollout.message}".rstrip(" .")
