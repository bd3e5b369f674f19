"""`argosy keys`: create, list and revoke the API keys of a server. A key is shown once, and stored only as a hash."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from argosy.cli.terminal import console, note, print_json, table
from argosy.core.errors import InvalidRequest
from argosy.core.plugins import resolve
from argosy.core.principal import Scope

_KEYS = {
    "create": "argosy.web.api_keys:create_key",
    "read": "argosy.web.api_keys:read_keys",
    "revoke": "argosy.web.api_keys:revoke_key",
}

command = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)

_File = Annotated[Path, typer.Option("--file", help="The key file `argosy serve --api-keys-file` reads.")]
_DEFAULT_FILE = Path("keys.json")


@command.command()
def create(
    name: Annotated[str, typer.Argument(help="Who will use it: fairness and logs know the key by this name.")],
    file: _File = _DEFAULT_FILE,
    scope: Annotated[list[str] | None, typer.Option(help="infer, metrics or admin; several allowed. [infer]")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Limit at a gateway. [none]")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(help="Limit at a gateway, prompts and answers. [none]")
    ] = None,
) -> None:
    """Create a key and print it, once."""
    key = resolve(_KEYS, "create", "action")(
        file,
        name,
        _scopes(scope or ["infer"]),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    console.print(key, soft_wrap=True)
    path = shlex.quote(str(file))
    note(f"key {name!r} added to {file}; it cannot be shown again: argosy serve --api-keys-file {path}")


@command.command("list")
def list_(
    file: _File = _DEFAULT_FILE,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the keys of a file, by name."""
    stored = resolve(_KEYS, "read", "action")(file).keys
    if json:
        print_json([_shown(key) for key in stored])
        return
    drawn = table("name", "scopes", "requests/min", "tokens/min", "created")
    for key in stored:
        drawn.add_row(
            key.name,
            ", ".join(key.scopes),
            str(key.requests_per_minute or "-"),
            str(key.tokens_per_minute or "-"),
            time.strftime("%Y-%m-%d", time.gmtime(key.created)),
        )
    console.print(drawn)


@command.command()
def revoke(name: Annotated[str, typer.Argument(help="The key's name.")], file: _File = _DEFAULT_FILE) -> None:
    """Take a key out of the file."""
    resolve(_KEYS, "revoke", "action")(file, name)
    note(f"key {name!r} revoked: running servers refuse it from now on")


def _shown(key: Any) -> dict[str, Any]:
    """A stored key without its digest."""
    fields = ("name", "scopes", "created", "requests_per_minute", "tokens_per_minute")
    return {field: getattr(key, field) for field in fields}


def _scopes(texts: list[str]) -> tuple[Scope, ...]:
    for text in texts:
        if text not in tuple(Scope):
            raise InvalidRequest(f"there is no scope {text!r}: use {', '.join(Scope)}", param="scope")
    return tuple(Scope(text) for text in texts)
