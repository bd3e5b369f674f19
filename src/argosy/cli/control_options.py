"""The options every command that speaks to a control plane has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_PANEL = "Control plane"

ControlUrl = Annotated[
    str | None, typer.Option("--control", help="Its URL. [the one that runs with --state]", rich_help_panel=_PANEL)
]
State = Annotated[
    Path | None,
    typer.Option("--state", help="Its state directory. [~/.local/state/argosy]", rich_help_panel=_PANEL),
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show each change.")]
ServiceName = Annotated[str, typer.Argument(help="The service's name.")]
