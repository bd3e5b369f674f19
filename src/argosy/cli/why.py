"""`argosy why`: why a service is as it is, in sentences, and where the time of a start went."""

from __future__ import annotations

from rich.markup import escape

from argosy.cli.control_options import ControlUrl, Json, ServiceName, State
from argosy.cli.service_tables import seconds_text
from argosy.cli.terminal import console, print_json, run_async, say, table
from argosy.client.control_client import ControlClient, open_client
from argosy.core.service_views import Why


def command(name: ServiceName, json: Json = False, control: ControlUrl = None, state: State = None) -> None:
    """Tell why a service is ready or not, what to do, and how long each part of a start took.

    Example: argosy why chat
    """
    run_async(_why(open_client(state, control), name, json=json))


async def _why(client: ControlClient, name: str, *, json: bool) -> None:
    async with client:
        why = await client.why(name)
    if json:
        print_json(why)
    else:
        show(why)


def show(why: Why) -> None:
    """Everything in the answer, in its order."""
    console.print(f"[bold]{escape(why.answer)}[/bold]", soft_wrap=True)
    for fact in why.facts:
        say(f"  · {fact}")
    if why.log_tail:
        say("\nlast lines of its log:")
        for line in why.log_tail:
            say(f"  | {line}")
    for replica, phases in why.start_seconds.items():
        drawn = table("part", "took", right=("took",))
        for part, seconds in phases.items():
            drawn.add_row(part, seconds_text(seconds))
        say(f"\nwhere the start of {replica} went:")
        console.print(drawn)
    if why.commands:
        say("\ntry:")
        for line in why.commands:
            say(f"  {line}")
