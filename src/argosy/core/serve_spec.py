"""Everything `argosy serve` can be told: flags, `--config file.yaml` and the control plane fill in this one type."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from argosy.core.engine import EngineSettings
from argosy.core.errors import SpecError
from argosy.core.model import is_name
from argosy.core.network import NetworkSettings

_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_SERVED_NAME_CHARACTERS = 128


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


class ServeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One replica. None = the best choice for this machine and model.

    model: a model reference or a path. served_model_name: names clients use, the first is the main one.
    allow_sources: URL prefixes that a model reference of https:, s3:, gs: or oss: may use. network: how to fetch it.
    adapters: LoRA adapters by served name, each a directory in PEFT's layout.
    api_keys_file: what `argosy keys create` writes. api_keys: keys in the clear, for a quick start; all scopes.
    insecure: allow a bind that others can reach without a key. allowed_hosts: Host headers that are ours.
    allowed_origins: web origins (`https://app.example`) whose pages may call us.
    shutdown_grace_seconds: how long open streams may run on after SIGTERM.
    """

    model: str
    served_model_name: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    uds: Path | None = None
    engine: str | None = None
    engine_settings: EngineSettings = EngineSettings()
    adapters: dict[str, Path] = {}
    store: Path | None = None
    allow_sources: tuple[str, ...] = ()
    network: NetworkSettings = NetworkSettings()
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

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.uds is not None or self.host in _LOOPBACK_HOSTS or self.host.startswith("127.")

    @property
    def has_keys(self) -> bool:
        """Whether callers need a key."""
        return bool(self.api_keys) or self.api_keys_file is not None


def check_serve_spec(spec: ServeSpec) -> None:
    """Refuse a spec that cannot be served, or that would open the server to everyone unasked (D-16).

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
    for name in spec.served_model_name:
        if len(name) > MAX_SERVED_NAME_CHARACTERS or not all(is_name(part) for part in name.split("/")):
            raise SpecError(
                f"served model name {name[:64]!r} is not valid: use letters, digits, '.', '_' and '-', "
                "with '/' between parts"
            )
    if any(not key.strip() or len(key) < 8 for key in spec.api_keys):
        raise SpecError("an API key has fewer than 8 characters: use `argosy keys create` for a strong one")
    for origin in spec.allowed_origins:
        if not origin.startswith(("http://", "https://")) or origin.endswith("/") or "*" in origin:
            raise SpecError(f"allowed origin {origin!r} is not one: write scheme and host, as in https://app.example")
