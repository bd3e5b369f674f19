"""`argosy archive`: make, look at, check, convert and prepare model archives. The work is artifacts/archives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from argosy.cli import exits, terminal
from argosy.cli.archive_create import create
from argosy.cli.archive_options import (
    ArchiveArgument,
    JsonOption,
    StoreOption,
    archives,
    environments_of,
    form_named,
    shown_bytes,
    store_root,
    target_path,
)
from argosy.cli.archive_prepare import prepare
from argosy.core.errors import InvalidRequest

command = typer.Typer(no_args_is_help=True, help="Make, inspect, verify, convert and prepare model archives (.mar).")
command.command("create")(create)


@command.command()
def inspect(archive: ArchiveArgument, as_json: JsonOption = False) -> None:
    """Show what an archive says of itself, and its files. Nothing is unpacked."""
    checked = archives("read_archive")(archive)
    if as_json:
        terminal.print_json(checked)
        return
    statement = checked.statement
    model = statement.manifest.model
    rows = {
        "model": f"{model.model_name} {model.model_version}",
        "form": checked.form,
        "handler": model.handler or "none",
        "weights": model.serialized_file,
        "model file": model.model_file,
        "runtime": statement.manifest.runtime,
        "made": " by ".join(filter(None, (statement.manifest.created_on, statement.manifest.archiver_version))),
        "manifest": "" if statement.has_manifest else "none: defaults",
        "size": terminal.size_text(checked.size_bytes),
    }
    table = terminal.table("field", "value")
    for field, value in rows.items():
        if value:
            table.add_row(field, _shown(value))
    for key, value in sorted(statement.config.items()):
        table.add_row("config", _shown(f"{key}: {value}"))
    for line in filter(None, map(str.strip, statement.requirements.splitlines())):
        table.add_row("requirement", _shown(line))
    for name, size in sorted(checked.files.items()):
        table.add_row("file", _shown(f"{name}  {terminal.size_text(size)}"))
    terminal.console.print(table)


def _shown(text: str) -> str:
    return escape(terminal.harmless(text))


@command.command()
def verify(
    archives_: Annotated[list[Path], typer.Argument(metavar="ARCHIVE...", help="Archives to check.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check everything a server would, and the handler's syntax; tell every fault at once. Nothing of it is run."""
    verdicts = [_verdict(path, store) for path in archives_]
    if as_json:
        terminal.print_json([{"is_good": verdict.is_good, **_fields(verdict)} for verdict in verdicts])
    else:
        for verdict in verdicts:
            _show_verdict(verdict)
    return exits.DONE if all(verdict.is_good for verdict in verdicts) else exits.FAILED


def _verdict(path: Path, store: Path | None) -> Any:
    environments = environments_of(store)
    environments.mkdir(parents=True, exist_ok=True)
    total = path.stat().st_size if path.is_file() else 0
    with shown_bytes(f"verify {path.name}", total) as on_bytes:
        return archives("verify_archive")(path, environments=environments, scratch=environments, on_bytes=on_bytes)


def _fields(verdict: Any) -> dict[str, Any]:
    return {field: getattr(verdict, field) for field in verdict.__struct_fields__}


def _show_verdict(verdict: Any) -> None:
    if verdict.is_good:
        kinds = ", ".join(f"{name} is {kind}" for name, kind in verdict.kinds.items())
        facts = "; ".join(filter(None, (verdict.digest[:19], kinds)))
        terminal.console.print(f"[green]✓[/green] {_shown(verdict.archive)} ({_shown(facts)})", soft_wrap=True)
    else:
        terminal.error_console.print(f"[red]✗[/red] {_shown(verdict.archive)}", soft_wrap=True)
    for finding in verdict.findings:
        mark = "[red]error:[/red]" if finding.is_error else "[yellow]note:[/yellow]"
        terminal.error_console.print(f"  {mark} {_shown(finding.message)}", soft_wrap=True)


@command.command()
def convert(
    archive: ArchiveArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A directory, or the file to write.")] = None,
    form: Annotated[str | None, typer.Option("--format", help="mar, zip-store, tgz, folder. [as it is]")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="A file to leave out. Repeatable.")] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an archive that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write an archive again, with safetensors where pickles were. They are read by a confined process."""
    if output is None:
        raise InvalidRequest(f"say where to write it: argosy archive convert {archive} -o NEW.mar", param="output")
    checked = archives("read_archive")(archive)
    chosen = form_named(form) if form is not None else checked.form
    target = target_path(output, checked.statement.manifest.model.model_name, chosen)
    conversion = archives("convert_archive")(
        archive,
        target,
        form=chosen,
        drop=tuple(drop or ()),
        force=force,
        on_file=lambda name: terminal.note(f"reading {name} in a process of its own"),
    )
    if as_json:
        terminal.print_json(conversion)
        return
    for file in conversion.files:
        facts = f"{file.num_tensors} tensors, {terminal.size_text(file.size_bytes)}"
        terminal.say(f"✓ {file.source} → {file.target} ({facts})")
        if file.dropped:
            terminal.warn(f"{file.source}: no tensors, left behind: {', '.join(file.dropped[:20])}")
    names = "" if conversion.files else " (it holds no pickles)"
    terminal.say(f"✓ {target}{names}")
    if conversion.files:
        terminal.note("a handler that opens a file by its old name has to be changed; the manifest names the new one")


command.command("prepare")(prepare)


@command.command()
def gc(
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be freed, free nothing.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Free what archives that are gone or were replaced have left in the store."""
    root = store_root(store) / "archives"
    freed = archives("collect_archives")(root, dry_run=True)
    size, number = terminal.size_text(freed.size_bytes), len(freed.files)
    if not dry_run and number:
        if not terminal.confirm(f"Free {size} in {number} paths?", yes=yes):
            terminal.note("nothing was freed; pass --yes to free without being asked")
            return exits.USAGE
        freed = archives("collect_archives")(root, dry_run=False)
    if as_json:
        terminal.print_json(freed)
    else:
        terminal.say(f"{'would free' if dry_run else 'freed'} {size} in {number} path{'' if number == 1 else 's'}")
    return exits.DONE
