"""`argosy archive prepare`: the packages an archive asks for, brought in before it is served, and locked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from argosy.cli import terminal
from argosy.cli.archive_options import ArchiveArgument, JsonOption, StoreOption, archives, environments_of
from argosy.core.errors import InvalidRequest


def prepare(
    archive: ArchiveArgument,
    store: StoreOption = None,
    index_url: Annotated[str, typer.Option(help="The package index. [as pip is configured]")] = "",
    extra_index_url: Annotated[list[str] | None, typer.Option(help="A further index. Repeatable.")] = None,
    find_links: Annotated[
        list[str] | None, typer.Option("--find-links", help="A directory or page with wheels. Repeatable.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no index: take wheels from --find-links.")] = False,
    allow_build: Annotated[
        bool, typer.Option("--allow-build", help="Also take packages that must be built, which runs their code.")
    ] = False,
    lock: Annotated[
        Path | None, typer.Option("--lock", exists=True, dir_okay=False, help="Install exactly this lock.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Prepare it again, also if it is there.")] = False,
    lock_only: Annotated[bool, typer.Option("--lock-only", help="Print the lock, install nothing.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the lock here too.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds it may take in all.")] = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """Install what an archive's requirements file asks for, locked by version and hash. Serving never installs."""
    if lock is not None and lock_only:
        raise InvalidRequest("--lock installs a lock and --lock-only writes one: give one of them", param="lock")
    checked = archives("read_archive")(archive)
    sources = archives("PackageSources")(
        index_url=index_url,
        extra_index_urls=tuple(extra_index_url or ()),
        find_links=tuple(str(Path(each).absolute()) if Path(each).is_dir() else each for each in find_links or ()),
        is_offline=offline,
        allows_building=allow_build,
    )
    preparation = archives("Preparation")(
        checked, environments_of(store), sources, on_line=_tell, timeout_seconds=timeout
    )
    if lock_only:
        text = preparation.lock()
        terminal.say(text.rstrip("\n"))
    else:
        prepared = preparation.prepare(lock.read_text() if lock is not None else "", anew=force)
        text = prepared.lock if prepared is not None else ""
        _show(archive.name, prepared, as_json=as_json)
    if output is not None:
        output.write_text(text)


def _tell(line: str) -> None:
    if line.strip():
        terminal.note(line)


def _show(name: str, prepared: Any, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(prepared)
    elif prepared is None:
        terminal.say(f"✓ {name} asks for no packages")
    else:
        packages = ", ".join(f"{package} {version}" for package, version in sorted(prepared.packages.items()))
        how = "was prepared already" if prepared.was_there else "is prepared"
        terminal.say(f"✓ {name} {how}: {packages or 'everything is part of this installation'}")
