"""`argosy completion`: the script that makes a shell complete our commands and flags."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import shell_complete

from argosy.cli.main import app


class Shell(StrEnum):
    """The shells there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def command(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> int:
    """Print the script that teaches a shell our commands, flags, and the names of services and revisions.

    Example: source <(argosy completion bash)
    """
    return shell_complete(typer.main.get_command(app), {}, "argosy", "_ARGOSY_COMPLETE", f"source_{shell.value}")
