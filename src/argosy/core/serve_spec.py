"""Everything `argosy serve` can be told: flags, `--config file.yaml` and the control plane fill in this one type."""

from __future__ import annotations

from pathlib import Path

import msgspec

from argosy.core.engine import EngineSettings
from argosy.core.errors import SpecError
from argosy.core.model import is_name
from argosy.core.network import NetworkSettings
from argosy.core.web_spec import WebSpec, check_web_spec

MAX_SERVED_NAME_CHARACTERS = 128


class ServeSpec(WebSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One replica. None = the best choice for this machine and model.

    model: a model reference or a path. served_model_name: names clients use, the first is the main one.
    allow_sources: URL prefixes that a model reference of https:, s3:, gs: or oss: may use. network: how to fetch it.
    adapters: LoRA adapters by served name, each a directory in PEFT's layout.
    """

    model: str
    served_model_name: tuple[str, ...] = ()
    engine: str | None = None
    engine_settings: EngineSettings = EngineSettings()
    adapters: dict[str, Path] = msgspec.field(default_factory=dict)
    store: Path | None = None
    allow_sources: tuple[str, ...] = ()
    network: NetworkSettings = NetworkSettings()


def check_serve_spec(spec: ServeSpec) -> None:
    """Refuse a spec that cannot be served, or that would open the server to everyone unasked (D-16).

    Raises: SpecError.
    """
    check_web_spec(spec)
    for name in spec.served_model_name:
        if len(name) > MAX_SERVED_NAME_CHARACTERS or not all(is_name(part) for part in name.split("/")):
            raise SpecError(
                f"served model name {name[:64]!r} is not valid: use letters, digits, '.', '_' and '-', "
                "with '/' between parts"
            )
