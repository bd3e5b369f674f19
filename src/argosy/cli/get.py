"""`argosy get` and `argosy list`: services as they are, or one with its revisions, replicas and last events."""

from __future__ import annotations

import sys
import time
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated

import typer

from argosy.cli.control_options import AnyService, ControlUrl, Json, State, Watch
from argosy.cli.service_file import yaml_of
from argosy.cli.service_tables import (
    WATCH_HEADER,
    event_table,
    replica_table,
    revision_table,
    service_table,
    watch_line,
)
from argosy.cli.terminal import console, note, print_json, run_async, say
from argosy.client.control_client import ControlClient, open_client
from argosy.core.inference_service import InferenceService

_LAST_EVENTS = 10


class Output(StrEnum):
    """How to show it."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


_AS_TABLE = (Output.TABLE, Output.WIDE)
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to show it.")]


def command(
    name: AnyService = None,
    output: OutputOption = Output.TABLE,
    json: Json = False,
    watch: Watch = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """Show services, or one with its revisions, replicas and last events.

    `-o yaml` is what `argosy deploy -f` takes: all that differs from the defaults.

    Examples: argosy get · argosy get chat -o yaml · argosy get -w
    """
    shown = Output.JSON if json else output
    run_async(_get(name, shown, watch=watch, client=open_client(state, control)))


def list_services(
    output: OutputOption = Output.TABLE,
    json: Json = False,
    watch: Watch = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """List services: the same as `argosy get` without a name."""
    command(None, output, json, watch, control, state)


async def _get(name: str | None, output: Output, *, watch: bool, client: ControlClient) -> None:
    async with client:
        if watch:
            await _watch(client, name, output)
        elif name is None:
            _show_all(await client.services(), output)
        elif output in _AS_TABLE:
            await _show_one(client, name, is_wide=output is Output.WIDE)
        else:
            _print(await client.service(name), output)


async def _watch(client: ControlClient, name: str | None, output: Output) -> None:
    """One line, or document, per change that can be seen."""
    if name is not None:
        await client.service(name)  # A name that does not exist is an error, not an endless wait.
    if output in _AS_TABLE:
        say(WATCH_HEADER)
    shown: dict[str, str] = {}
    async with aclosing(client.watch_services()) as changes:
        async for change in changes:
            service, its_name = change.resource, change.resource.metadata.name
            if name is not None and its_name != name:
                continue
            if output not in _AS_TABLE:
                _print(service, output)
                continue
            line = watch_line(service, is_deleted=change.is_deleted)
            if shown.get(its_name) != line:
                say(f"{time.strftime('%H:%M:%S'):10}{line}")
            shown[its_name] = line


def _show_all(services: list[InferenceService], output: Output) -> None:
    if output is Output.JSON:
        print_json(services)
    elif output not in _AS_TABLE:
        for service in services:
            _print(service, output)
    elif services:
        console.print(service_table(services, time.time(), wide=output is Output.WIDE))
    else:
        note("no service is declared: deploy one with `argosy deploy smollm2`")


def _print(service: InferenceService, output: Output) -> None:
    if output is Output.NAME:
        say(service.metadata.name)
    elif output is Output.YAML:
        sys.stdout.write(f"---\n{yaml_of(service)}")
        sys.stdout.flush()
    else:
        print_json(service)


async def _show_one(client: ControlClient, name: str, *, is_wide: bool) -> None:
    service, now = await client.service(name), time.time()
    status = service.status
    console.print(service_table([service], now, wide=is_wide))
    console.print()
    for condition in status.conditions:
        say(f"{condition.type}={condition.status.value} ({condition.reason}) {condition.message}".rstrip())
    console.print()
    console.print(revision_table(service, await client.revisions(name), now))
    if replicas := await client.replicas(name):
        console.print()
        console.print(replica_table(replicas, now))
    if events := await client.events(name):
        console.print()
        console.print(event_table(events[-_LAST_EVENTS:], now))
