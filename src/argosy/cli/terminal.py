"""What every command shares: two consoles, progress columns, JSON output, and the way into the event loop.

Answers go to stdout (`console`), everything else to stderr (`error_console`), so that a pipe carries answers only.
A terminal gets colour and bars; a pipe gets plain lines; `NO_COLOR` is obeyed. Secrets are never printed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

from argosy.cli.exits import exit_code as exit_code

T = TypeVar("T")
MIN_WIDTH = 60
PIPE_WIDTH = 160
_MESSAGE = "MESSAGE"
_LEAST_MESSAGE_WIDTH = 28


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width: int | None = None
    if not os.environ.get("COLUMNS"):
        if not stream.isatty():
            width = PIPE_WIDTH
        elif os.get_terminal_size(stream.fileno()).columns < MIN_WIDTH:
            width = MIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, emoji=False)


console = _console(stderr=False)
error_console = _console(stderr=True)


def is_interactive() -> bool:
    """Whether a person is at both ends: we may ask, draw and colour."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run the command's one coroutine. The first ^C cancels it, the second ends the process at once.

    Raises: whatever `main` raises; KeyboardInterrupt after a ^C.
    """
    return asyncio.run(main)


def print_json(value: object) -> None:
    """`value` (a struct or plain data) as JSON on stdout, indented for a person, one document per call."""
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)
    sys.stdout.write(text.decode() + "\n")
    sys.stdout.flush()


def say(message: str) -> None:
    """One line of the answer, as it is, however long."""
    console.print(message, markup=False, soft_wrap=True)


def harmless(text: str) -> str:
    """A stranger's text with what would steer the terminal written out: `\\x1b` for an escape (D-18)."""
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


def note(message: str) -> None:
    """One dim line beside the answer: progress, figures, advice."""
    error_console.print(f"[dim]{escape(harmless(message))}[/dim]", soft_wrap=True)


def warn(message: str) -> None:
    """One line the user should see before going on."""
    error_console.print(f"[yellow]warning:[/yellow] {escape(harmless(message))}", soft_wrap=True)


def confirm(question: str, *, yes: bool) -> bool:
    """Whether to go on with something that cannot be undone; `yes` answers for the user, a pipe answers no."""
    if yes:
        return True
    if not is_interactive():
        return False
    return console.input(f"{escape(question)} [dim]\\[y/N][/dim] ").strip().lower() in {"y", "yes"}


def table(*headers: str, right: Iterable[str] = ()) -> Table:
    """A table as kubectl draws them: upper-case headers, no lines, two blanks between columns."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    numbers = set(right)
    for header in headers:
        drawn.add_column(header.upper(), justify="right" if header in numbers else "left", overflow="fold")
    return drawn


def fitted(drawn: Table, *optional: str) -> Table:
    """`drawn` without as many of its optional columns, the last first, as it takes to fit into the terminal.

    A column `message` gives way first, down to a few words a line; no other is broken if it can be helped.
    """
    columns, left = [*drawn.columns], [*optional]
    while (is_wide := sum(map(_least_width, columns)) > console.width) and left:
        dropped = left.pop().upper()
        columns = [column for column in columns if column.header != dropped]
    headers = [str(column.header) for column in columns]
    result = table(*headers, right=[str(column.header) for column in columns if column.justify == "right"])
    for column in result.columns:
        column.no_wrap = not is_wide and column.header != _MESSAGE
    for row in zip(*(column.cells for column in columns), strict=True):
        result.add_row(*row)
    return result


def _least_width(column: Column) -> int:
    width = max(cell_len(str(cell)) for cell in (column.header, *column.cells)) + 2
    return min(width, _LEAST_MESSAGE_WIDTH) if column.header == _MESSAGE else width


def size_text(size: float) -> str:
    """A size as disks and hubs write it: powers of ten, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.3g} TB"


def byte_columns() -> tuple[ProgressColumn, ...]:
    """Progress of a download: name, bar, bytes, rate, time left."""
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )


def item_columns() -> tuple[ProgressColumn, ...]:
    """Progress of counted things: bar, count, a rate (the task's field `rate`), time left."""
    return (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )


def progress(*columns: ProgressColumn) -> Progress:
    """A progress display on stderr that leaves no trace; on a pipe it draws nothing."""
    return Progress(*columns, console=error_console, transient=True, disable=not error_console.is_terminal)
