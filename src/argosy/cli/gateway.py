"""`argosy gateway`: one URL in front of all replicas of a control plane."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argosy.cli.spec_flags import spec_from
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
from argosy.core.control_spec import GatewaySpec
from argosy.core.plugins import resolve

_ROLES = {"gateway": "argosy.api.run_gateway:run_gateway"}


def command(
    config: Config = None,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one. [8000]")] = None,
    name: Annotated[str | None, typer.Option(help="Unique among a control plane's gateways. [gateway]")] = None,
    control: Annotated[
        str | None, typer.Option("--control", help="The control plane to follow. [http://127.0.0.1:8100]")
    ] = None,
    admin_key_file: Annotated[Path | None, typer.Option(help="Holds the key it shows the control plane.")] = None,
    replica_key_file: Annotated[Path | None, typer.Option(help="Holds the key it shows replicas.")] = None,
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
    """Answer for all services under one URL; `argosy up` starts one for you."""
    flags = dict(locals())
    flags["control_url"] = flags.pop("control")
    return int(resolve(_ROLES, "gateway", "role")(spec_from(GatewaySpec, "argosy gateway", config, flags)))
