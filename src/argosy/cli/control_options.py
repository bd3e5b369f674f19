"""The options every command that speaks to a control plane has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argosy.cli.service_names import complete_revision, complete_service, complete_weight

_PANEL = "Control plane"

ControlUrl = Annotated[
    str | None, typer.Option("--control", help="Its URL. [the one that runs with --state]", rich_help_panel=_PANEL)
]
State = Annotated[
    Path | None,
    typer.Option("--state", help="Its state directory. [~/.local/state/argosy]", rich_help_panel=_PANEL),
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show each change.")]
ServiceName = Annotated[str, typer.Argument(help="The service's name.", autocompletion=complete_service)]
AnyService = Annotated[
    str | None, typer.Argument(help="One service; all if left out.", autocompletion=complete_service)
]
ServiceNames = Annotated[list[str], typer.Argument(help="The services.", autocompletion=complete_service)]
Weights = Annotated[
    list[str] | None,
    typer.Argument(help="revision=percent, together 100: v1=90 v2=10.", autocompletion=complete_weight),
]
ToRevision = Annotated[
    str | None,
    typer.Option(
        "--to", help="The revision to go back to, such as v1. [the one before]", autocompletion=complete_revision
    ),
]
OfRevision = Annotated[
    str | None, typer.Option("--revision", help="Replicas of one revision.", autocompletion=complete_revision)
]
