"""`argosy archive create`: with flags of its own, and with those of `torch-model-archiver` under their own names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argosy.cli import terminal
from argosy.cli.archive_options import JsonOption, archives, form_named, shown_bytes, target_path
from argosy.core.errors import InvalidRequest

_ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Replace an archive that is there.")]


def create(
    name: Annotated[str | None, typer.Argument(help="The model's name. Or use --model-name.")] = None,
    model_name: Annotated[str | None, typer.Option("--model-name", help="The same as NAME.")] = None,
    version: Annotated[str, typer.Option("--version", "-v", help="The model's version.")] = "1.0",
    handler: Annotated[
        str, typer.Option("--handler", help="FILE.py, FILE.py:FUNCTION, FILE.py:CLASS, or a built-in handler.")
    ] = "",
    serialized_file: Annotated[Path | None, typer.Option("--serialized-file", help="The weights.")] = None,
    model_file: Annotated[Path | None, typer.Option("--model-file", help="Python file with the model's class.")] = None,
    extra_files: Annotated[
        list[str] | None,
        typer.Option(
            "--extra-files", help="Files, directories (their contents) and patterns, with commas. Repeatable."
        ),
    ] = None,
    requirements_file: Annotated[
        Path | None, typer.Option("--requirements-file", "-r", help="Packages `argosy archive prepare` brings in.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config-file", "-c", help="model-config.yaml: workers, batches, timeouts.")
    ] = None,
    runtime: Annotated[str, typer.Option("--runtime", help="python or python3.")] = "python",
    output: Annotated[
        Path, typer.Option("--output", "-o", "--export-path", help="A directory, or the file to write.")
    ] = Path(),
    form: Annotated[
        str, typer.Option("--format", "--archive-format", help="mar (or default), zip-store, tgz, folder (no-archive).")
    ] = "mar",
    force: _ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make an archive of a handler and its files. The same files give the same archive, byte for byte."""
    if not (chosen := name or model_name) or (name and model_name and name != model_name):
        raise InvalidRequest(
            "give the model's name once: argosy archive create NAME --handler handler.py", param="name"
        )
    plan = archives("plan_archive")(
        archives("Ingredients")(
            model_name=chosen,
            version=version,
            handler=handler,
            serialized_file=serialized_file,
            model_file=model_file,
            extra_files=tuple(each for text in extra_files or () for each in text.split(",") if each.strip()),
            requirements_file=requirements_file,
            config_file=config_file,
            runtime=runtime,
        )
    )
    archive_form = form_named(form)
    target = target_path(output, chosen, archive_form)
    archives("require_free")(target, archive_form, force=force)
    if not dry_run:
        with shown_bytes(f"write {target.name}", plan.size_bytes) as on_bytes:
            archives("create_archive")(plan, target, archive_form, force=force, on_bytes=on_bytes)
    files = {file: path.stat().st_size for file, path in sorted(plan.files.items())}
    if as_json:
        answer = {"path": str(target), "form": archive_form, "manifest": plan.manifest, "files": files}
        terminal.print_json({**answer, "is_written": not dry_run})
    else:
        number = f"{len(files)} file{'' if len(files) == 1 else 's'}, {terminal.size_text(plan.size_bytes)}"
        terminal.say(f"{'would write' if dry_run else '✓'} {target} ({chosen} {version}, {number})")
        for file, size in files.items() if dry_run else ():
            terminal.say(f"  {file}  {terminal.size_text(size)}")
    for file, path in plan.files.items():
        if (kind := archives("kind_of")(path)) in ("pickle", "torchscript"):
            terminal.warn(_advice(file, kind, target))


def _advice(file: str, kind: str, target: Path) -> str:
    if kind == "torchscript":
        return f"{file} is a TorchScript program: a server loads it only with --allow-content torchscript"
    return f"{file} is a pickle, which no server loads: run argosy archive convert {target} -o NEW.mar"
