"""`argosy top`: services, replicas and devices, and what they do now."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from argosy.cli.control_options import ControlUrl, Json, State
from argosy.cli.service_tables import device_table, load_table, replica_load_table
from argosy.cli.terminal import console, is_interactive, print_json, run_async
from argosy.client.control_client import ControlClient, open_client
from argosy.core.errors import BackendError, DeadlineExceeded, Unavailable
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
    goes_on = is_interactive() and not json if watch is None else watch
    run_async(_top(open_client(state, control), goes_on=goes_on, json=json))


async def _top(client: ControlClient, *, goes_on: bool, json: bool) -> None:
    async with client:
        top = await client.top()
        if goes_on and console.is_terminal and not json:
            await _live(client, top)
        while True:
            print_json(top) if json else console.print(page(top))
            if not goes_on:
                return
            await asyncio.sleep(_PERIOD_SECONDS)
            top = await client.top()


async def _live(client: ControlClient, top: Top) -> None:
    """Renew the screen until ^C. A control plane that goes away is said above the last figures, not taken for zero."""
    with Live(_titled(client, top, ""), console=console, auto_refresh=False, screen=True) as live:
        while True:
            await asyncio.sleep(_PERIOD_SECONDS)
            trouble = ""
            try:
                top = await client.top()
            except (BackendError, Unavailable, DeadlineExceeded) as exc:
                trouble = f"{exc.message}; these figures are {time.time() - top.at:.0f} s old"
            live.update(_titled(client, top, trouble), refresh=True)


def _titled(client: ControlClient, top: Top, trouble: str) -> RenderableType:
    at = time.strftime("%H:%M:%S", time.localtime(top.at))
    title = Text(f"argosy top · {client.url} · {at} · ^C ends", style="dim")
    return Group(title, *([Text(trouble, style="yellow")] if trouble else []), "", page(top))


def page(top: Top) -> RenderableType:
    """All tables of one answer; what is missing says so."""
    parts: list[RenderableType] = []
    if top.gateway_message:
        parts += [Text(top.gateway_message, style="yellow"), ""]
    parts.append(load_table(top.services) if top.services else "no service is declared: argosy deploy smollm2")
    if top.replicas:
        parts += ["", replica_load_table(top.replicas)]
    if top.devices:
        parts += ["", device_table(top.devices)]
    return Group(*parts)
