"""`argosy logs`: what a service's replicas wrote, those of a failed one first to hand."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import Annotated

import typer

from argosy.cli.control_options import ControlUrl, OfRevision, ServiceName, State
from argosy.cli.terminal import run_async
from argosy.client.control_client import ControlClient, open_client


def command(
    name: ServiceName,
    replica: Annotated[str | None, typer.Option(help="One replica. [all; those that failed come first]")] = None,
    revision: OfRevision = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """Show the log lines of a service's replicas.

    Examples: argosy logs chat -f · argosy logs chat --revision v2
    """
    run_async(_logs(open_client(state, control), name, replica, revision, follow=follow))


async def _logs(client: ControlClient, name: str, replica: str | None, revision: str | None, *, follow: bool) -> None:
    async with client, aclosing(client.logs(name, replica=replica, follow=follow, revision=revision)) as lines:
        async for line in lines:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
