"""The flags of every server of ours: where it listens, whom it lets in, how it logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_LISTENING, _ACCESS, _LOGS = "Listening", "Access", "Logs"

Config = Annotated[Path | None, typer.Option("--config", help="A YAML file of the same fields; flags win.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]", rich_help_panel=_LISTENING)]
ShutdownTimeout = Annotated[
    float | None,
    typer.Option(help="Seconds open streams may run on after SIGTERM. [30]", rich_help_panel=_LISTENING),
]
ApiKeysFile = Annotated[Path | None, typer.Option(help="What `argosy keys create` writes.", rich_help_panel=_ACCESS)]
ApiKey = Annotated[
    list[str] | None, typer.Option(help="A key in the clear, all scopes; prefer a file.", rich_help_panel=_ACCESS)
]
Insecure = Annotated[
    bool | None, typer.Option("--insecure", help="Let other machines in without a key.", rich_help_panel=_ACCESS)
]
AllowedHost = Annotated[list[str] | None, typer.Option(help="Host header that is ours.", rich_help_panel=_ACCESS)]
AllowedOrigin = Annotated[
    list[str] | None, typer.Option(help="Web origin whose pages may call us.", rich_help_panel=_ACCESS)
]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error. [info]", rich_help_panel=_LOGS)]
LogFormat = Annotated[
    str | None, typer.Option(help="json, text, or auto: text on a terminal. [auto]", rich_help_panel=_LOGS)
]
AccessLog = Annotated[
    bool | None, typer.Option("--access-log", help="One log line per request.", rich_help_panel=_LOGS)
]
OtlpEndpoint = Annotated[
    str | None, typer.Option(help="Send traces here, OTLP over HTTP. [off]", rich_help_panel=_LOGS)
]
