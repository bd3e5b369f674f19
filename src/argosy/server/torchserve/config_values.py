"""Values of a config.properties, as fields of a `TorchServeSpec`: each raises ValueError saying what is meant."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

Fields = dict[str, Any]
Take = Callable[[str], Fields]

# Source: ConfigManager.ADDRESS_PATTERN of TorchServe 0.12; its default ports by scheme and API.
_ADDRESS = re.compile(r"((https?)://)?(\[[0-9a-fA-F:.]+\]|[^\s:/]+)(:(\d+))?/?")
_ANY_URL = frozenset({"file://.*", "http(s)?://.*", "https?://.*", "http://.*", "https://.*", ".*"})
_PLAIN_PREFIX = re.compile(r"(?:https?|file)://[A-Za-z0-9][A-Za-z0-9.\-_/:]*")


def at(*place: str) -> Callable[[Any], Fields]:
    """Puts a value at a path of the spec's fields."""

    def put(value: Any) -> Fields:
        for name in reversed(place):
            value = {name: value}
        fields: Fields = value
        return fields

    return put


def text(*place: str) -> Take:
    """The text as it is; an empty one says nothing."""
    return lambda value: at(*place)(value) if value else {}


def number(*place: str, low: int = 0, scale: float = 1) -> Take:
    """A whole number, at least `low`, times `scale`."""

    def take(value: str) -> Fields:
        if not re.fullmatch(r"-?\d{1,18}", value) or int(value) < low:
            raise ValueError(f"must be a whole number, at least {low}")
        return at(*place)(int(value) if scale == 1 else int(value) * scale)

    return take


def flag(*place: str, negated: bool = False) -> Take:
    """`true`, or anything else for false, as Java's Boolean.parseBoolean; but what is neither is refused."""

    def take(value: str) -> Fields:
        return at(*place)(is_true(value) is not negated)

    return take


def is_true(value: str) -> bool:
    """Whether the text is `true`. Raises: ValueError if it is not `false` either."""
    if value.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return value.lower() == "true"


def address(place: str | None, default_port: int) -> Take:
    """`http://host:port`; None = the spec's own host and port."""

    def take(value: str) -> Fields:
        found = _ADDRESS.fullmatch(value)
        if found is None:
            raise ValueError(f"must be an address such as http://127.0.0.1:{default_port}")
        if found[2] == "https":
            raise ValueError(
                "asks for TLS, which is not served here: put a proxy that ends TLS in front and write http://"
            )
        port = int(found[5]) if found[5] else default_port
        fields: Fields = {"host": found[3].strip("[]"), "port": port}
        return fields if place is None else {place: fields}

    return take


def names(*place: str) -> Take:
    """Texts between commas; `none` is an empty list, as TorchServe has it."""

    def take(value: str) -> Fields:
        found = [part.strip() for part in value.split(",") if part.strip()]
        return at(*place)([] if [each.lower() for each in found] == ["none"] else found)

    return take


def load_models(value: str) -> Fields:
    """`all`, `none`, or archives between commas."""
    fields = names("load_models")(value)
    fields["load_models"] = ["all" if each.lower() == "all" else each for each in fields["load_models"]]
    return fields


def allowed_urls(value: str) -> Fields:
    """Regular expressions between commas: those that are a plain beginning and `.*`, as beginnings.

    TorchServe's own default, any URL, gives nothing: a server that fetches whatever it is told to is no default here.
    """
    prefixes = []
    for pattern in filter(None, (part.strip() for part in value.replace("|", ",").split(","))):
        if pattern in _ANY_URL:
            continue
        prefix = pattern.removesuffix("$").removesuffix(".*").replace("\\.", ".").replace("\\/", "/").removeprefix("^")
        if not _PLAIN_PREFIX.fullmatch(prefix):
            raise ValueError(
                f"has the pattern {pattern[:80]!r}, which is no plain beginning of URLs: "
                "write it as https://HOST/PATH/.*"
            )
        prefixes.append(prefix)
    return {"allow_sources": prefixes}


def origins(value: str) -> Fields:
    """One web origin, or several between commas. A star is refused: it would let any page call this server."""
    if "*" in value:
        raise ValueError("must name the web origins that may call this server, not '*': write https://app.example")
    return names("allowed_origins")(value)


class _Row(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One version in `models` or a snapshot. Times: milliseconds for the delay, seconds for the others.

    parallel_level, runtime_type: only what every model has; their other values ask for what is not done here.
    """

    mar_name: str
    default_version: bool = False
    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay: int | None = None
    response_timeout: int | None = None
    startup_timeout: int | None = None
    parallel_level: Literal[1] = 1
    runtime_type: Literal["python", "PYTHON", "python3", "PYTHON3"] = "python"


class _Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot says of models."""

    models: dict[str, dict[str, _Row]]


def models(value: str) -> Fields:
    """`{"name": {"version": {"marName": …}}}`."""
    return {"models": _rows(_json(value, dict[str, dict[str, _Row]]))}


def snapshot(value: str) -> Fields:
    """The models of a snapshot; they are what was running, so nothing else is loaded."""
    return {"models": _rows(_json(value, _Snapshot).models), "load_models": []}


def _json(value: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.DecodeError as exc:
        raise ValueError(
            f'must be JSON such as {{"t5":{{"1.0":{{"marName":"t5.mar","minWorkers":1}}}}}} ({exc})'
        ) from exc


def _rows(found: dict[str, dict[str, _Row]]) -> Fields:
    return {name: {version: _start(row) for version, row in versions.items()} for name, versions in found.items()}


def _start(row: _Row) -> Fields:
    """A `StartVersion`'s fields. A maximum below the minimum is raised to it, as TorchServe does."""
    fields = {
        "archive": row.mar_name,
        "is_default": row.default_version,
        "min_workers": row.min_workers,
        "max_workers": row.max_workers,
        "batch_size": row.batch_size,
        "max_batch_delay_seconds": None if row.max_batch_delay is None else row.max_batch_delay / 1000,
        "response_timeout_seconds": row.response_timeout,
        "startup_timeout_seconds": row.startup_timeout,
    }
    if row.min_workers is not None and row.max_workers is not None:
        fields["max_workers"] = max(row.min_workers, row.max_workers)
    return fields
