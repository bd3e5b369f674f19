"""`argosy chat`: talk to a running server, or with --local to a model loaded here, in the terminal.

The event loop runs in a thread of its own, so that typing (which blocks) never stops it; ^C while an answer comes
stops that answer, ^D at the prompt leaves. On a pipe, everything read is one question and the answer is all output.
"""

from __future__ import annotations

import contextlib
import readline
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from argosy.cli import exits, terminal
from argosy.cli.client import first_model, open_client
from argosy.cli.conversation import Conversation, Figures, Settings, parse_setting
from argosy.cli.loop_thread import LoopThread
from argosy.core.errors import ArgosyError, InvalidRequest
from argosy.core.plugins import resolve

_SERVER: Mapping[str, str] = {"offline": "argosy.server.offline:open_offline"}
_HISTORY = Path("~/.local/state/argosy/chat_history").expanduser()
_HISTORY_LINES = 1_000

HELP = """\
/help            this list
/clear           forget the conversation
/system TEXT     set the system message (empty: none)
/set NAME VALUE  temperature, top_p, top_k, max_tokens, seed, stop … (no VALUE: unset; no NAME: list)
/model NAME      ask another model of the server
/stats           figures of every answer so far
/exit            leave (as does ^D); ^C stops an answer
\"\"\"              begins and ends a message of several lines; a line ending in \\ goes on, too"""


def command(
    model: Annotated[str | None, typer.Argument(help="Name the server knows; with --local a model reference.")] = None,
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8000",
    local: Annotated[bool, typer.Option("--local", help="Load the model here, without a server.")] = False,
    engine: Annotated[str | None, typer.Option(help="Engine of --local; default: the best for this model.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Ask this one thing and leave.")] = None,
    system: Annotated[str, typer.Option(help="System message.")] = "",
    temperature: Annotated[float | None, typer.Option(help="0 to 2; 0 takes the likeliest token.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 1024,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell every figure after an answer.")] = False,
) -> int:
    """Talk to a model in the terminal.

    The key of a server that wants one is read from the environment variable ARGOSY_API_KEY.
    """
    settings = Settings(temperature=temperature, max_tokens=max_tokens, seed=seed)
    opening = open_client(url)
    if local:
        opening = resolve(_SERVER, "offline", "server")(model or "smollm2", engine, terminal.note)
    with LoopThread() as loop, loop.entered(opening) as client:
        name = loop.run(first_model(client)) if local or model is None else model
        conversation = Conversation(client, name, system, settings)
        session = Session(loop, conversation, is_verbose=verbose)
        if message is None and terminal.is_interactive():
            session.repl()
        else:
            session.answer(message if message is not None else sys.stdin.read())
    return exits.DONE


class Session:
    """One talk at the terminal."""

    def __init__(self, loop: LoopThread, conversation: Conversation, *, is_verbose: bool) -> None:
        self._loop = loop
        self._conversation = conversation
        self._is_verbose = is_verbose

    def repl(self) -> None:
        """Read, answer, repeat, until /exit or ^D. An error is told and forgotten."""
        terminal.note(f"talking to {self._conversation.model} · /help lists commands · ^D leaves")
        with _line_history():
            for text in _messages():
                try:
                    if text.startswith("/"):
                        if self._obey(text) == "exit":
                            return
                    else:
                        self.answer(text)
                except KeyboardInterrupt:
                    terminal.note("stopped")
                except ArgosyError as error:
                    terminal.error_console.print(f"error: {exits.describe(error)}", style="red", markup=False)

    def answer(self, text: str) -> None:
        """Ask, and print the answer as it comes. Raises: ArgosyError; KeyboardInterrupt once the answer has stopped."""
        if not text.strip():
            raise InvalidRequest("there is nothing to ask: type a message, or pass one with --message")

        def show(piece: str) -> None:
            sys.stdout.write(piece)
            sys.stdout.flush()

        try:
            figures = self._loop.run(self._conversation.ask(text, show))
        finally:
            show("\n")
        if terminal.is_interactive() or self._is_verbose:
            terminal.note(figures.full() if self._is_verbose else figures.brief())

    def _obey(self, line: str) -> str:
        name, _, rest = line[1:].partition(" ")
        rest = rest.strip()
        conversation = self._conversation
        if name in {"exit", "quit", "bye"}:
            return "exit"
        if name == "clear":
            conversation.clear()
        elif name == "system":
            conversation.system = rest
        elif name == "model" and rest:
            conversation.model = rest
        elif name == "set":
            self._set(rest)
        elif name == "stats":
            _show_stats(conversation.figures)
        elif name in {"help", "?"}:
            terminal.console.print(HELP, markup=False)
        else:
            terminal.note(f"there is no /{name}: /help lists what there is")
        return ""

    def _set(self, text: str) -> None:
        if text:
            self._conversation.settings = parse_setting(self._conversation.settings, text)
        chosen = self._conversation.settings.chosen()
        terminal.note(" · ".join(f"{name} {value}" for name, value in chosen.items()) or "nothing is set")


def _show_stats(figures: list[Figures]) -> None:
    table = terminal.table("answer", "tokens", "tok/s", "first token", "finish", right=("answer", "tokens", "tok/s"))
    for number, each in enumerate(figures, start=1):
        table.add_row(str(number), str(each.completion_tokens), each.rate(), each.first(), each.finish_reason)
    terminal.console.print(table)


def _messages() -> Iterator[str]:
    """What the user says, message by message. ^C drops what has been typed; ^D ends."""
    while True:
        try:
            text = _read_message()
        except KeyboardInterrupt:
            terminal.note("\n^D or /exit leaves")
            continue
        except EOFError:
            sys.stdout.write("\n")
            return
        if text.strip():
            yield text.strip()


def _read_message() -> str:
    line = input("\u203a ")
    if line.strip().startswith('"""'):
        return _read_block(line.strip()[3:])
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input("… "))
    return "\n".join(lines)


def _read_block(first: str) -> str:
    lines = [first]
    while not lines[-1].rstrip().endswith('"""'):
        lines.append(input("… "))
    return "\n".join(lines).rstrip().removesuffix('"""')


@contextlib.contextmanager
def _line_history() -> Iterator[None]:
    """Lines of earlier talks under the arrow keys; readable by this user only."""
    with contextlib.suppress(OSError):
        readline.read_history_file(_HISTORY)
    try:
        yield
    finally:
        readline.set_history_length(_HISTORY_LINES)
        with contextlib.suppress(OSError):
            _HISTORY.parent.mkdir(parents=True, exist_ok=True)
            _HISTORY.touch(mode=0o600)
            readline.write_history_file(_HISTORY)
