"""Flags, or a YAML file, or both (flags win), into one spec: `argosy serve`, `gateway`, `control` and `up` alike.

Each flag fills one field: the one of its own name, or the one that `places` names as a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from argosy.core.errors import SpecError

_Spec = TypeVar("_Spec", bound=msgspec.Struct)
Place = tuple[str, ...]

# Flags of every HTTP server of ours that do not have their field's name.
WEB_PLACES: Mapping[str, Place] = {
    "api_key": ("api_keys",),
    "allowed_host": ("allowed_hosts",),
    "allowed_origin": ("allowed_origins",),
    "shutdown_timeout": ("shutdown_grace_seconds",),
    "max_body_bytes": ("limits", "max_body_bytes"),
    "max_connections": ("limits", "max_connections"),
}
# Those of the servers that fetch models.
NETWORK_PLACES: Mapping[str, Place] = {
    **{name: ("network", name) for name in ("hf_endpoint", "ms_endpoint", "allow_private_addresses")},
    "connections": ("network", "num_connections"),
    "allow_source": ("allow_sources",),
}
# Those that mean one model of an engine.
MODEL_PLACES: Mapping[str, Place] = {
    **{
        name: ("engine_settings", name)
        for name in (
            "device",
            "max_model_len",
            "max_num_seqs",
            "max_num_batched_tokens",
            "kv_cache_bytes",
            "num_threads",
            "enable_prefix_caching",
            "engine_args",
        )
    },
    "lora_modules": ("adapters",),
    **{
        name: ("limits", name)
        for name in ("max_waiting", "max_waiting_tokens", "max_queue_seconds", "deadline_seconds")
    },
}


def spec_from(
    kind: type[_Spec],
    command: str,
    config: Path | None,
    flags: Mapping[str, Any],
    *,
    places: Mapping[str, Place] = WEB_PLACES,
    defaults: Mapping[str, Any] = MappingProxyType({}),
    overrides: Mapping[str, Any] = MappingProxyType({}),
) -> _Spec:
    """The spec of a file and flags; flags of value None or [] were not given. overrides: fields that win over flags.

    Raises: SpecError with the path of what is wrong.
    """
    fields = merged(defaults, read_config(config) if config is not None else {})
    for name, value in flags.items():
        if value is None or value == [] or name == "config":
            continue
        *parents, last = places.get(name, (name,))
        place = fields
        for parent in parents:
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
            if not isinstance(place, dict):
                raise SpecError(f"{parent} in {config} is no mapping of fields: see `{command} --help`")
        place[last] = value
    try:
        return msgspec.convert(merged(fields, overrides), kind, strict=False, dec_hook=_path)
    except msgspec.ValidationError as exc:
        where = f"in {config} or the flags" if config else "in the flags"
        raise SpecError(f"{exc} ({where}): see `{command} --help`") from exc


def merged(fields: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` over `fields`, mapping by mapping; neither is changed."""
    result = dict(fields)
    for name, value in more.items():
        below = result.get(name)
        is_deep = isinstance(value, dict) and isinstance(below, dict)
        result[name] = merged(below, value) if isinstance(below, dict) and is_deep else value
    return result


def read_config(path: Path) -> dict[str, Any]:
    """The fields of a YAML file. Raises: SpecError."""
    try:
        fields = msgspec.yaml.decode(path.read_bytes())
    except OSError as exc:
        raise SpecError(f"config {path} cannot be read ({exc.strerror})") from exc
    except msgspec.DecodeError as exc:
        raise SpecError(f"config {path} is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(fields, dict):
        raise SpecError(f"config {path} is not a mapping of fields, such as `model: smollm2`")
    return fields


def pairs(flag: str, texts: list[str]) -> dict[str, str]:
    """`name=value` texts as a mapping. Raises: SpecError."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise SpecError(f"--{flag} {text[:64]!r} is not name=value")
        found[name] = value
    return found


def _path(wanted: type, value: object) -> object:
    if wanted is Path and isinstance(value, str | Path):
        return Path(value)
    raise NotImplementedError(f"{wanted.__name__} cannot be made from {value!r}")
