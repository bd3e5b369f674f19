"""`argosy delete`: end services; open requests finish first."""

from __future__ import annotations

from typing import Annotated

import typer

from argosy.cli.control_options import ControlUrl, State, Yes
from argosy.cli.terminal import confirm, console, run_async
from argosy.client.control_client import ControlClient, open_client
from argosy.core.errors import InvalidRequest


def command(
    names: Annotated[list[str], typer.Argument(help="The services.")],
    yes: Yes = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """End services and all their replicas. Requests that run are finished first.

    Example: argosy delete chat
    """
    listed = ", ".join(names)
    if not confirm(f"End {listed} and all replicas?", yes=yes):
        raise InvalidRequest(f"{listed} not deleted: nobody said yes; add --yes to delete without a question")
    run_async(_delete(open_client(state, control), names))


async def _delete(client: ControlClient, names: list[str]) -> None:
    async with client:
        for name in names:
            await client.delete(name)
            console.print(f"{name} deleted: its replicas finish what they answer, then end", markup=False)
