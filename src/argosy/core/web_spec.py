"""What every HTTP server of ours can be told: where to listen, whom to let in, how much to bear, how to log.

A replica, a gateway and the control plane's API each add what only they know; flags and YAML of all three share this.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from argosy.core.errors import SpecError

_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class LogLevel(StrEnum):
    """The least important lines still shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How log lines look: `auto` is text on a terminal, JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LimitsSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one client, or all together, may take.

    max_waiting, max_waiting_tokens, max_queue_seconds: the queue for permits (docs/serving.md).
    deadline_seconds: longest time from arrival to last token; None = none.
    header_seconds, body_seconds: longest time to send a request's head and body. stall_seconds: longest time a
    reader may leave a full buffer unread. keep_alive_seconds: how long an idle connection stays.
    """

    max_waiting: int = 256
    max_waiting_tokens: int = 2_000_000
    max_queue_seconds: float = 60.0
    deadline_seconds: float | None = None
    max_body_bytes: int = 8 * 2**20
    max_header_bytes: int = 32 * 2**10
    max_connections: int = 1_000
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    stall_seconds: float = 20.0
    keep_alive_seconds: float = 15.0


class WebSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One HTTP server.

    api_keys_file: what `argosy keys create` writes. api_keys: keys in the clear, for a quick start; all scopes.
    insecure: allow a bind that others can reach without a key. allowed_hosts: Host headers that are ours.
    allowed_origins: web origins (`https://app.example`) whose pages may call us.
    shutdown_grace_seconds: how long open streams may run on after SIGTERM.
    otlp_endpoint: where traces go (OTLP over HTTP); None = nowhere.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: Path | None = None
    api_keys_file: Path | None = None
    api_keys: tuple[str, ...] = ()
    insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    limits: LimitsSpec = LimitsSpec()
    shutdown_grace_seconds: float = 30.0
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.AUTO
    access_log: bool = False
    otlp_endpoint: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.uds is not None or self.host in _LOOPBACK_HOSTS or self.host.startswith("127.")

    @property
    def has_keys(self) -> bool:
        """Whether callers need a key."""
        return bool(self.api_keys) or self.api_keys_file is not None


def check_web_spec(spec: WebSpec) -> None:
    """Refuse a server that cannot listen, or that would be open to everyone unasked (D-16).

    Raises: SpecError.
    """
    if not 0 <= spec.port <= 65535:
        raise SpecError(f"port {spec.port} does not exist: choose 1 to 65535, or 0 for a free one")
    if not spec.is_loopback and not spec.has_keys and not spec.insecure:
        raise SpecError(
            f"--host {spec.host} lets other machines in, and no API key is set: create one with "
            "`argosy keys create NAME --file keys.json` and pass --api-keys-file keys.json, "
            "or accept everyone with --insecure"
        )
    if any(not key.strip() or len(key) < 8 for key in spec.api_keys):
        raise SpecError("an API key has fewer than 8 characters: use `argosy keys create` for a strong one")
    for origin in spec.allowed_origins:
        if not origin.startswith(("http://", "https://")) or origin.endswith("/") or "*" in origin:
            raise SpecError(f"allowed origin {origin!r} is not one: write scheme and host, as in https://app.example")
