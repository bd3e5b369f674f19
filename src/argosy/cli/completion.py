"""`argosy completion`: the script that makes a shell complete our commands and flags."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_script


class Shell(StrEnum):
    """The shells there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def command(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print the completion script of a shell.

    Example: source <(argosy completion bash)
    """
    typer.echo(get_completion_script(prog_name="argosy", complete_var="_ARGOSY_COMPLETE", shell=shell.value))
