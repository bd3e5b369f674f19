"""Names of services and revisions for the shell: asked of the control plane, if it answers at once.

Whoever presses Tab waits; so there is a short deadline, and any failure is an empty list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import typer

from argosy.client.control_client import ControlClient, open_client
from argosy.core.errors import ArgosyError

_PATIENCE_SECONDS = 0.5


def complete_service(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of services that begin with `incomplete`, but for those on the line already."""

    async def names(client: ControlClient) -> list[str]:
        return [service.metadata.name for service in await client.services()]

    given = ctx.params.get("names") or ()
    return [name for name in _asked(ctx, names) if name.startswith(incomplete) and name not in given]


def complete_revision(ctx: typer.Context, incomplete: str) -> list[str]:
    """Revisions (`v2`) of the service on the line."""
    return [name for name in _revisions(ctx) if name.startswith(incomplete)]


def complete_weight(ctx: typer.Context, incomplete: str) -> list[str]:
    """Revisions of the service on the line, each with the `=` that a weight follows."""
    return [f"{name}=" for name in _revisions(ctx) if name.startswith(incomplete)]


def _revisions(ctx: typer.Context) -> list[str]:
    # A flag whose value is being typed keeps the words before it from becoming arguments.
    service = ctx.params.get("name") or next(iter(ctx.args), None)
    if not service:
        return []

    async def names(client: ControlClient) -> list[str]:
        return [revision.short_name for revision in await client.revisions(service)]

    return _asked(ctx, names)


def _asked(ctx: typer.Context, ask: Callable[[ControlClient], Awaitable[list[str]]]) -> list[str]:
    async def answer(client: ControlClient) -> list[str]:
        async with client, asyncio.timeout(_PATIENCE_SECONDS):
            return await ask(client)

    state = ctx.params.get("state")
    try:
        return asyncio.run(answer(open_client(Path(state) if state else None, ctx.params.get("control"))))
    except (ArgosyError, OSError, TimeoutError):
        return []
