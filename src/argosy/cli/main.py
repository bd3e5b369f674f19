"""`argosy`: one word per thing to do. Only the command that is asked for is imported.

`COMMANDS` names the module of each command as text; `LazyGroup` imports it when the command is called and never for
`argosy --help`, which therefore answers in a tenth of a second and loads no engine. Every module exports `command`:
a function (one command) or a `typer.Typer` (a group). Errors end here, in one line; `--debug` shows the traceback.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, NamedTuple, NoReturn, cast

import typer
from typer.core import TyperCommand, TyperGroup

import argosy
from argosy.cli import exits
from argosy.core.plugins import resolve

COMMANDS: Mapping[str, str] = {
    "serve": "argosy.cli.serve:command",
    "chat": "argosy.cli.chat:command",
    "infer": "argosy.cli.infer:command",
    "models": "argosy.cli.models:command",
    "archive": "argosy.cli.archive:command",
    "bench": "argosy.cli.bench:command",
    "keys": "argosy.cli.keys:command",
    "up": "argosy.cli.up:command",
    "deploy": "argosy.cli.deploy:command",
    "get": "argosy.cli.get:command",
    "list": "argosy.cli.get:list_services",
    "logs": "argosy.cli.logs:command",
    "events": "argosy.cli.events:command",
    "why": "argosy.cli.why:command",
    "top": "argosy.cli.top:command",
    "scale": "argosy.cli.scale:command",
    "traffic": "argosy.cli.traffic:command",
    "rollout": "argosy.cli.rollout:command",
    "delete": "argosy.cli.delete:command",
    "control": "argosy.cli.control:command",
    "gateway": "argosy.cli.gateway:command",
    "simulate": "argosy.cli.simulate:command",
    "completion": "argosy.cli.completion:command",
}

# Of Argosy's own processes: not in any list, as nobody types them.
HIDDEN: Mapping[str, str] = {"standby": "argosy.cli.standby:command"}

# `argosy --help`: its sections, and a line for each command.
SECTIONS: Mapping[str, Mapping[str, str]] = {
    "One server": {
        "serve": "Serve a model over the OpenAI API, with a chat page.",
        "chat": "Talk to a model in the terminal.",
        "infer": "Answer a file of prompts offline; go on where it stopped.",
        "models": "List, pull, verify and remove models.",
        "archive": "Make, verify, convert and prepare TorchServe archives.",
        "bench": "Measure any OpenAI-compatible server under load.",
        "keys": "Create, list and revoke API keys.",
    },
    "A cloud of services": {
        "up": "Start control plane and gateway on this machine.",
        "deploy": "Declare a service; show its way until it is ready.",
        "get": "Show services, or one with its replicas and events.",
        "list": "List services.",
        "logs": "Show what a service's replicas wrote.",
        "events": "Show what happened to services.",
        "why": "Tell why a service is ready or not, in sentences.",
        "top": "Show load: requests, tokens, queues, KV cache, devices.",
        "scale": "Set how many replicas a service has.",
        "traffic": "Split a service's requests over its revisions.",
        "rollout": "Follow a rollout, pause it, or go back.",
        "delete": "End services; open requests finish first.",
    },
    "More": {
        "control": "Run the control plane alone.",
        "gateway": "Run a gateway alone.",
        "simulate": "Replay traffic against scaling policies on a virtual clock.",
        "completion": "Print the completion script of a shell.",
    },
}

SUMMARIES: Mapping[str, str] = {name: line for section in SECTIONS.values() for name, line in section.items()}

EPILOG = "Start with: argosy serve · or: argosy up, then argosy deploy smollm2 · help on one: argosy serve --help"


class Completion(NamedTuple):
    """What a shell may offer, with the fields of Typer's own class, which is private."""

    value: str
    help: str
    type: str = "plain"


class LazyGroup(TyperGroup):
    """The root command: knows the names and summaries of its commands, imports one when it is called.

    `ctx` is Any because Typer keeps its context class in a private module.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, imported now; None if there is none of that name."""
        if cmd_name not in COMMANDS and cmd_name not in HIDDEN:
            return None
        return load_command(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The tables of `argosy --help`, without importing what they list."""
        width = max(map(len, COMMANDS))
        for title, lines in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, line in lines.items()])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Names of commands and flags, without importing the commands."""
        flags = super(TyperGroup, self).shell_complete(ctx, incomplete)
        return [*(Completion(name, line) for name, line in SUMMARIES.items() if name.startswith(incomplete)), *flags]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As Typer does it, with a suggestion drawn from the names of all commands."""
        if args and args[0] not in {**COMMANDS, **HIDDEN} and not ctx.resilient_parsing:
            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}."
            ctx.fail(f"No command is called {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)


def load_command(name: str) -> TyperCommand | TyperGroup:
    """The command `name` as Typer's own object. Raises: NotFound."""
    target = resolve({**COMMANDS, **HIDDEN}, name, "command")
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False, rich_markup_mode="rich")
        target.command(name, context_settings={"help_option_names": ["-h", "--help"]})(function)
    target._add_completion = False
    loaded = typer.main.get_command(target)
    loaded.name = name
    return cast("TyperCommand | TyperGroup", loaded)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"argosy {argosy.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Argosy serves open models: one command, the OpenAI API, real answers on a plain CPU."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error has been told on stderr when this returns."""
    debug, arguments = _take_debug(arguments)
    # A command that wants logs sets them up; the others tell the user themselves.
    logging.getLogger("argosy").addHandler(logging.NullHandler())
    try:
        result = typer.main.get_command(app).main(list(arguments), prog_name="argosy", standalone_mode=False)
    except typer.TyperException as error:
        return _tell_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`argosy models | head`); leave without a second complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except Exception as error:  # noqa: BLE001  # boundary: whatever a command raised becomes one line and a code
        if debug:
            traceback.print_exception(error)
        _tell(exits.describe(error))
        return exits.exit_code(error)
    return result if isinstance(result, int) else exits.DONE


def main() -> NoReturn:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def _take_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """`--debug` may stand anywhere before a bare `--`; the commands themselves never see it."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    head = [argument for argument in arguments[:end] if argument != "--debug"]
    return len(head) < end, [*head, *arguments[end:]]


def _tell_usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message())
        return exits.USAGE
    path = context.command_path if context is not None else "argosy"
    near = getattr(error, "possibilities", None)
    message = f"{error.message}: did you mean {near[0]!r}?" if near else error.format_message()
    _tell(f"{' '.join(message.split())} Try: {path} --help")
    return exits.USAGE


def _tell(message: str) -> None:
    plain = bool(os.environ.get("NO_COLOR")) or not sys.stderr.isatty()
    prefix = "error:" if plain else "\x1b[1;31merror:\x1b[0m"
    sys.stderr.write(f"{prefix} {message}\n")


if __name__ == "__main__":
    main()
