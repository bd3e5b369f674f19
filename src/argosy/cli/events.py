"""`argosy events`: what happened to services, and why."""

from __future__ import annotations

import time
from contextlib import aclosing

from argosy.cli.control_options import AnyService, ControlUrl, Json, State, Watch
from argosy.cli.service_tables import event_cells, event_table
from argosy.cli.terminal import console, note, print_json, run_async, say
from argosy.client.control_client import ControlClient, open_client


def command(
    name: AnyService = None,
    json: Json = False,
    watch: Watch = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """Show what happened to services, the oldest first.

    Examples: argosy events chat · argosy events -w
    """
    run_async(_events(name, json=json, watch=watch, client=open_client(state, control)))


async def _events(name: str | None, *, json: bool, watch: bool, client: ControlClient) -> None:
    async with client:
        if watch:
            await _watch(client, name, json=json)
            return
        events = await client.events(name)
        if json:
            print_json(events)
        elif events:
            console.print(event_table(events, time.time()))
        else:
            note("nothing has happened yet")


async def _watch(client: ControlClient, name: str | None, *, json: bool) -> None:
    if name is not None:
        await client.service(name)  # A name that does not exist is an error, not an endless wait.
    async with aclosing(client.watch_events(name)) as changes:
        async for change in changes:
            event = change.resource
            if change.is_deleted:
                continue
            if json:
                print_json(event)
            else:
                _, kind, reason, subject, count, message = event_cells(event, time.time())
                at = time.strftime("%H:%M:%S", time.localtime(event.last_at))
                say(f"{at}  {kind:8} {reason:24} {subject:24} {count:>4}  {message}")
