"""`argosy control`: the control plane alone, its API and its loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argosy.cli.spec_flags import spec_from
from argosy.cli.web_options import (
    AccessLog,
    AllowedHost,
    AllowedOrigin,
    ApiKeysFile,
    Config,
    Host,
    LogFormat,
    LogLevel,
    OtlpEndpoint,
    ShutdownTimeout,
)
from argosy.core.control_spec import ControlSpec
from argosy.core.plugins import resolve

_ROLES = {"control": "argosy.api.run_control:run_control"}


def command(
    config: Config = None,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port of its API and console. [8100]")] = None,
    state: Annotated[Path | None, typer.Option(help="Its state directory. [~/.local/state/argosy]")] = None,
    backend: Annotated[str | None, typer.Option(help="What runs replicas. [local]")] = None,
    devices: Annotated[Path | None, typer.Option(help="YAML that declares devices. [found]")] = None,
    stop_replicas: Annotated[
        bool | None, typer.Option("--stop-replicas/--keep-replicas", help="End replicas when it ends. [keep]")
    ] = None,
    shutdown_timeout: ShutdownTimeout = None,
    api_keys_file: ApiKeysFile = None,
    allowed_host: AllowedHost = None,
    allowed_origin: AllowedOrigin = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    access_log: AccessLog = None,
    otlp_endpoint: OtlpEndpoint = None,
) -> int:
    """Make declared services so, and keep them so. Its API always asks for a key: the one in its state directory."""
    flags = dict(locals())
    return int(resolve(_ROLES, "control", "role")(spec_from(ControlSpec, "argosy control", config, flags)))
