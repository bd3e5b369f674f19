"""`argosy up`: a small cloud on this machine: control plane and gateway, until ^C."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from argosy.cli.spec_flags import WEB_PLACES, Place, spec_from
from argosy.cli.web_options import (
    AccessLog,
    AllowedHost,
    AllowedOrigin,
    ApiKey,
    ApiKeysFile,
    Config,
    Host,
    Insecure,
    LogFormat,
    LogLevel,
    OtlpEndpoint,
    ShutdownTimeout,
)
from argosy.core.control_spec import UpSpec
from argosy.core.plugins import resolve

_ROLES = {"up": "argosy.api.run_up:run_up"}
_CONTROL_FLAGS = {"control_port": "port", "state": "state", "backend": "backend", "devices": "devices"}
# Both processes log alike, and both trace or neither does.
_SHARED_FLAGS = ("log_level", "log_format", "otlp_endpoint")


def command(
    config: Config = None,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port of the OpenAI API. [8000]")] = None,
    control_port: Annotated[int | None, typer.Option(help="Port of the control plane. [8100]")] = None,
    state: Annotated[Path | None, typer.Option(help="State directory. [~/.local/state/argosy]")] = None,
    backend: Annotated[str | None, typer.Option(help="What runs replicas. [local]")] = None,
    devices: Annotated[Path | None, typer.Option(help="YAML that declares devices. [found]")] = None,
    keep_replicas: Annotated[
        bool | None,
        typer.Option("--keep-replicas", help="^C leaves replicas running; the next `argosy up` adopts them."),
    ] = None,
    shutdown_timeout: ShutdownTimeout = None,
    api_keys_file: ApiKeysFile = None,
    api_key: ApiKey = None,
    insecure: Insecure = None,
    allowed_host: AllowedHost = None,
    allowed_origin: AllowedOrigin = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    access_log: AccessLog = None,
    otlp_endpoint: OtlpEndpoint = None,
) -> int:
    """Start control plane and gateway on this machine; then `argosy deploy smollm2`.

    Services declared before are started again. ^C drains and ends everything.
    """
    flags = dict(locals())
    return int(resolve(_ROLES, "up", "role")(up_spec(config, flags)))


def up_spec(config: Path | None, flags: dict[str, Any]) -> UpSpec:
    """Both specs of a file (`control:` and `gateway:`) and flags. Raises: SpecError."""
    places: dict[str, Place] = {"keep_replicas": ("keep_replicas",)}
    given: dict[str, Any] = {"keep_replicas": flags.pop("keep_replicas", None)}
    for name, value in flags.items():
        if name in _SHARED_FLAGS:
            for role in ("control", "gateway"):
                given[f"{role}_{name}"] = value
                places[f"{role}_{name}"] = (role, name)
        else:
            given[name] = value
            field = _CONTROL_FLAGS.get(name)
            places[name] = ("control", field) if field else ("gateway", *WEB_PLACES.get(name, (name,)))
    return spec_from(UpSpec, "argosy up", config, given, places=places)
