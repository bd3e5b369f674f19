"""`argosy get` and `argosy list`: services as they are, or one with its revisions, replicas and last events."""

from __future__ import annotations

import time
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated

import msgspec
import typer
from rich.markup import escape

from argosy.cli.control_options import ControlUrl, Json, State, Watch
from argosy.cli.service_tables import event_table, replica_table, revision_table, service_table
from argosy.cli.terminal import console, note, print_json, run_async
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


def command(
    name: Annotated[str | None, typer.Argument(help="One service; all if left out.")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to show it.")] = Output.TABLE,
    json: Json = False,
    watch: Watch = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """List services, or show one with its revisions, replicas and last events.

    Examples: argosy get · argosy get chat -o yaml · argosy get -w
    """
    shown = Output.JSON if json else output
    run_async(_get(name, shown, watch=watch, client=open_client(state, control)))


async def _get(name: str | None, output: Output, *, watch: bool, client: ControlClient) -> None:
    async with client:
        if watch:
            await _watch(client, name, output)
        elif name is None:
            _show(await client.services(), output)
        elif output is Output.TABLE or output is Output.WIDE:
            await _show_one(client, name)
        else:
            _print(await client.service(name), output)


async def _watch(client: ControlClient, name: str | None, output: Output) -> None:
    """One line per change, as `kubectl get -w` does."""
    async with aclosing(client.watch_services()) as changes:
        async for change in changes:
            if name is not None and change.resource.metadata.name != name:
                continue
            if output is Output.TABLE or output is Output.WIDE:
                table = service_table([change.resource], time.time(), wide=True)
                console.print(table if not change.is_deleted else f"{change.resource.metadata.name} deleted")
            else:
                _print(change.resource, output)


def _show(services: list[InferenceService], output: Output) -> None:
    if output is Output.JSON:
        print_json(services)
    elif output is Output.TABLE or output is Output.WIDE:
        if not services:
            note("no service is declared: deploy one with `argosy deploy smollm2`")
            return
        console.print(service_table(services, time.time(), wide=output is Output.WIDE))
    else:
        for service in services:
            _print(service, output)


def _print(service: InferenceService, output: Output) -> None:
    if output is Output.NAME:
        console.print(service.metadata.name, markup=False)
    elif output is Output.YAML:
        document = {
            "kind": "InferenceService",
            "metadata": {"name": service.metadata.name, "labels": service.metadata.labels},
            "spec": service.spec,
        }
        console.print("---\n" + msgspec.yaml.encode(document).decode(), markup=False, end="")
    else:
        print_json(service)


async def _show_one(client: ControlClient, name: str) -> None:
    service = await client.service(name)
    now = time.time()
    console.print(service_table([service], now))
    for condition in service.status.conditions:
        console.print(f"\n{condition.type}={condition.status.value} ({condition.reason}): {escape(condition.message)}")
    if service.status.rollout.message:
        console.print(f"Rollout: {escape(service.status.rollout.message)}")
    if service.status.scaling_message:
        console.print(f"Scaling: {escape(service.status.scaling_message)}")
    console.print()
    console.print(revision_table(service, await client.revisions(name), now))
    if replicas := await client.replicas(name):
        console.print()
        console.print(replica_table(replicas, now))
    if events := await client.events(name):
        console.print()
        console.print(event_table(events[-_LAST_EVENTS:], now))
