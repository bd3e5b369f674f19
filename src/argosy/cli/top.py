"""`argosy top`: services, replicas and devices, and what they do now."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live

from argosy.cli.control_options import ControlUrl, Json, State
from argosy.cli.service_tables import device_table, load_table, replica_load_table
from argosy.cli.terminal import console, is_interactive, print_json, run_async
from argosy.client.control_client import ControlClient, open_client
from argosy.core.service_views import Top

_PERIOD_SECONDS = 1.0


def command(
    watch: Annotated[
        bool | None, typer.Option("--watch/--once", help="Go on, or show it once. [go on, on a terminal]")
    ] = None,
    json: Json = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """Show services, replicas and devices with their load: requests, tokens, queues, KV cache.

    Examples: argosy top · argosy top --once · argosy top --json
    """
    run_async(
        _top(open_client(state, control), watch=(is_interactive() if watch is None else watch) and not json, json=json)
    )


async def _top(client: ControlClient, *, watch: bool, json: bool) -> None:
    async with client:
        if not watch:
            top = await client.top()
            print_json(top) if json else console.print(_page(top))
            return
        with Live(_page(await client.top()), console=console, auto_refresh=False, screen=is_interactive()) as live:
            while True:
                await asyncio.sleep(_PERIOD_SECONDS)
                live.update(_page(await client.top()), refresh=True)


def _page(top: Top) -> RenderableType:
    parts: list[RenderableType] = []
    if top.gateway_message:
        parts += [f"[yellow]{top.gateway_message}[/yellow]", ""]
    parts.append(load_table(top.services) if top.services else "no service is declared: argosy deploy smollm2")
    if top.replicas:
        parts += ["", replica_load_table(top.replicas)]
    if top.devices:
        parts += ["", device_table(top.devices)]
    return Group(*parts)
