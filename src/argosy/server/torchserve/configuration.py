"""Finding and reading a config.properties, or the last snapshot: fields of a `TorchServeSpec`, and what to say of them.

    TS_CONFIG_FILE  >  --torchserve (--ts-config)  >  the last snapshot  >  ./config.properties  >  nothing

A value: a `TS_` variable if enable_envvars_config=true  >  a flag  >  the file. Nothing is passed over in silence: a
key without effect has a line, and a key nobody knows ends the start with what was probably meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from argosy.core.errors import SpecError
from argosy.server.torchserve.config_keys import KEYS, VARIABLES, Treatment, variable_of
from argosy.server.torchserve.config_values import Fields, is_true
from argosy.server.torchserve.properties import Property, read_properties, with_variables
from argosy.server.torchserve.snapshots import last_snapshot

_PAGE = "docs/migrating-from-torchserve.md"
_ADDRESS_KEYS = ("inference_address", "management_address", "metrics_address")


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. fields: from the file. overrides: from variables. notes: lines to say at the start.

    source: the file; None = there was none. text: its properties as they were, for snapshots.
    """

    fields: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    source: Path | None = None
    properties: dict[str, str] = {}


def read_configuration(file: Path | None, snapshot_dir: Path | None, variables: Mapping[str, str]) -> Configuration:
    """The configuration that applies. snapshot_dir: where the last one may be; None = do not look.

    Raises: SpecError naming file, line and remedy.
    """
    source, notes = _found(file, snapshot_dir, variables)
    if source is None:
        return Configuration()
    read = {prop.key: with_variables(prop, variables) for prop in read_properties(source).values()}
    fields: Fields = {}
    for prop in read.values():
        notes += _apply(prop, fields)
    overrides: Fields = {}
    if "enable_envvars_config" in read and is_true(read["enable_envvars_config"].value):
        for prop in _from_variables(variables):
            notes += _apply(prop, overrides)
    _resolve_paths(fields, source)
    _open_as_written(read, fields)
    return Configuration(
        fields=fields,
        overrides=overrides,
        notes=tuple(notes),
        source=source,
        properties={prop.key: prop.value for prop in read.values()},
    )


def _found(file: Path | None, snapshot_dir: Path | None, variables: Mapping[str, str]) -> tuple[Path | None, list[str]]:
    named = variables.get("TS_CONFIG_FILE")
    if named:
        is_other = file is not None and file.absolute() != Path(named).absolute()
        return Path(named), [f"TS_CONFIG_FILE={named} is used, not {file}"] if is_other else []
    if file is not None:
        return file, []
    last = last_snapshot(snapshot_dir) if snapshot_dir is not None else None
    if last is not None:
        return last, [f"restoring {last}: name a config.properties with --torchserve, or pass --no-config-snapshots"]
    beside = Path("config.properties")
    return (beside, [f"reading {beside.absolute()}"]) if beside.is_file() else (None, [])


def _from_variables(variables: Mapping[str, str]) -> list[Property]:
    names = {variable_of(key): key for key in KEYS} | dict(VARIABLES)
    return [
        Property(key=names[name], value=value, where=f"environment variable {name}")
        for name, value in variables.items()
        if name in names
    ]


def _apply(prop: Property, fields: Fields) -> list[str]:
    """Take one property over. Raises: SpecError. Returns what to say about it."""
    known = KEYS.get(prop.key)
    if known is None:
        near = difflib.get_close_matches(prop.key, KEYS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else "remove it; "
        raise SpecError(f"{prop.where}: no key is called {prop.key[:64]!r}: {hint}{_PAGE} lists them all")
    try:
        taken = known.take(prop.value)
    except ValueError as exc:
        raise SpecError(f"{prop.where}: {prop.key}={prop.value[:120]} {exc}") from exc
    merge(fields, taken)
    if known.treatment is Treatment.TAKEN or prop.value.lower() in known.silent_values:
        return []
    if known.treatment is Treatment.REFUSED:
        raise SpecError(f"{prop.where}: {prop.key} is refused: {known.note}")
    return [f"{prop.where}: {prop.key} is {known.treatment.value}: {known.note}"]


def merge(into: Fields, more: Mapping[str, Any]) -> None:
    """Put `more` over `into`, field by field."""
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value


def _resolve_paths(fields: Fields, source: Path) -> None:
    """Relative paths mean what TorchServe makes of them: they start in the working directory; if not there, beside."""
    for place, name in ((fields, "model_store"), (fields.get("metrics_settings", {}), "config")):
        path = place.get(name)
        if path and not Path(path).is_absolute() and not Path(path).exists():
            beside = source.parent / path
            place[name] = str(beside if beside.exists() else path)


def _open_as_written(read: Mapping[str, Property], fields: Fields) -> None:
    """An address in the file is its owner's own word, so the server opens it; without keys it says so loudly."""
    if any(key in read for key in _ADDRESS_KEYS):
        fields["insecure"] = True
