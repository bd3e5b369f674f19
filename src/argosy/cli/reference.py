"""docs/cli.md, written from the commands themselves: `make docs` renews it, and a test says when that is due."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from argosy.cli.main import COMMANDS, app, load_command

HEAD = """\
# The command line

*Written by `make docs` from the commands themselves.*

Every command follows the same rules:

- **Answers go to stdout, all else to stderr.** A terminal gets colour and progress bars, a pipe gets plain lines;
  `NO_COLOR` is obeyed. Commands that read or change something have `--json`.
- **An error is one line**: what happened, with which values, and what to do now. `--debug`, anywhere on the line, adds
  the traceback. A mistyped command or flag gets a suggestion.
- **Exit codes**: 0 done · 1 the system failed · 2 you did (a wrong flag, file or request) · 3 timed out ·
  130 interrupted.
- **^C once** stops in good order: a server lets open answers end, a batch keeps every finished row.
  Twice stops at once.
- **Secrets** come from files or from `ARGOSY_API_KEY` and `HF_TOKEN`, and are never shown again.

`source <(argosy completion bash)` teaches your shell the commands, the flags, and the names of services and revisions.
"""


def reference() -> str:
    """The whole page, in Markdown."""
    parts = [HEAD, *_section("argosy", typer.main.get_command(app))]
    for name in COMMANDS:
        command = load_command(name)
        parts += _section(f"argosy {name}", command)
        if isinstance(command, TyperGroup):
            for inner, subcommand in command.commands.items():
                parts += _section(f"argosy {name} {inner}", subcommand)
    return "\n".join(parts)


def _section(title: str, command: Any) -> Iterator[str]:
    yield f"## {title}\n"
    help_text = inspect.cleandoc(command.help or "").split("\f")[0]
    yield f"{help_text}\n"
    shown = [param for param in command.params if param.name != "help" and not getattr(param, "hidden", False)]
    if shown:
        yield "| argument or flag | what it does |\n|---|---|"
        for param in shown:
            yield f"| {_names(param)} | {_cell(param)} |"
        yield ""


def _names(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{(param.metavar or param.name).upper()}`"
    return " ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))


def _cell(param: Any) -> str:
    text = " ".join((getattr(param, "help", "") or "").split()).replace("|", "\\|")
    default = param.default
    is_shown = default not in (None, False, "", [], ()) and not callable(default) and not param.required
    if is_shown and param.show_default is True and default is not True:
        text += f" Default: `{default}`."
    return f"**Required.** {text}" if param.required else text


if __name__ == "__main__":
    sys.stdout.write(reference())
