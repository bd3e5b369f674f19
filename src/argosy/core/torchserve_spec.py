"""Everything `argosy serve --torchserve` can be told: config.properties, snapshots and flags fill in this one type.

It is a `WebSpec`, whose host and port are the inference API's; management and metrics have an address each. Equal
addresses are one listener that answers the routes of all.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from argosy.core.errors import SpecError
from argosy.core.model_archive import VersionSettings
from argosy.core.network import NetworkSettings
from argosy.core.web_spec import LimitsSpec, WebSpec, check_web_spec

# Source: ConfigManager of TorchServe 0.12 (max_request_size).
MAX_REQUEST_BYTES = 6_553_500
LOAD_ALL = "all"


class Compat(StrEnum):
    """What happens where TorchServe is wrong: `right` does right, `strict` does as it does (docs/torchserve-api.md)."""

    RIGHT = "right"
    STRICT = "strict"


class MetricsSet(StrEnum):
    """Whose label sets the `ts_*` metrics have: TorchServe 0.7.1's, or those of 0.8 to 0.12."""

    OLD = "0.7"
    NEW = "0.12"


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to listen. port: 0 = a free one."""

    host: str
    port: int


class StartVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of a model to load at the start, from `models` of a config.properties or from a snapshot.

    archive: file name in the model store, or a URL. Fields that are None follow the archive, then the defaults.
    """

    archive: str
    is_default: bool = False
    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_seconds: float | None = None
    response_timeout_seconds: float | None = None
    startup_timeout_seconds: float | None = None


class HandlerDefaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What handlers get where their archive says nothing.

    handler, envelope: "" = none. decode_input: JSON and text reach the handler decoded.
    limit_max_image_pixels: a handler's own guard against huge images, passed on to it.
    """

    handler: str = ""
    envelope: str = ""
    decode_input: bool = True
    limit_max_image_pixels: bool = True


class SequenceHeaders(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request headers that name a sequence, begin it and end it."""

    sequence_id: str = "ts_request_sequence_id"
    start: str = "ts_request_sequence_start"
    end: str = "ts_request_sequence_end"


class TorchServeMetricsSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which metrics are exposed.

    config: a metrics.yaml that declares handlers' metrics. auto_detect: also those it does not declare.
    system: CPU, memory and disk of this machine, looked at every `system_interval_seconds`.
    """

    enabled: bool = True
    label_set: MetricsSet = MetricsSet.NEW
    config: Path | None = None
    auto_detect: bool = False
    system: bool = True
    system_interval_seconds: float = 60.0


class TorchServeLimits(LimitsSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TorchServe's own largest request, and room for the ten thousand users of the GKE tutorial's load generator."""

    max_body_bytes: int = MAX_REQUEST_BYTES
    max_connections: int = 12_000


class TorchServeSpec(WebSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server with TorchServe's three APIs.

    management, metrics: their addresses; host and port are the inference API's.
    model_store: the directory archives are named in. load_models: `all`, `a.mar`, `name=b.mar`; all for everything.
    models: name → version → what to load. version_defaults: for what neither an archive nor a call says.
    workers_per_model: at the start; None = as many as there are cores. A model registered later begins with 0 if None.
    allow_sources: URL prefixes that archives may be registered from; none = from the model store only.
    enable_model_api: who may register, scale and unregister. None: whoever has a key, or anyone on a loopback address;
    True: anyone who reaches the address; False: nobody registers and unregisters (405, as TorchServe).
    lame_duck_seconds: how long, after SIGTERM, it goes on to take connections while its probes say unready.
    shows_causes: an answer about a failed handler tells its exception; None = on a loopback address.
    allow_content: kinds of weights that are refused otherwise, because reading them runs code (`torchscript`).
    worker_variables: names of environment variables that handlers may see beyond harmless ones.
    snapshot_dir: where the running configuration is written after every change; None = nowhere.
    store: where archives are unpacked and environments built; None = the user's cache.
    """

    port: int = 8080
    limits: TorchServeLimits = TorchServeLimits()
    management: Address = Address("127.0.0.1", 8081)
    metrics: Address = Address("127.0.0.1", 8082)
    model_store: Path | None = None
    load_models: tuple[str, ...] = ()
    models: dict[str, dict[str, StartVersion]] = msgspec.field(default_factory=dict)
    version_defaults: VersionSettings = VersionSettings()
    workers_per_model: Annotated[int, msgspec.Meta(ge=0)] | None = None
    unregister_timeout_seconds: float = 120.0
    lame_duck_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    handlers: HandlerDefaults = HandlerDefaults()
    sequence_headers: SequenceHeaders = SequenceHeaders()
    metrics_settings: TorchServeMetricsSpec = TorchServeMetricsSpec()
    compat: Compat = Compat.RIGHT
    open_inference: bool = False
    enable_model_api: bool | None = None
    max_response_bytes: int = MAX_REQUEST_BYTES
    shows_causes: bool | None = None
    allow_sources: tuple[str, ...] = ()
    allow_content: tuple[str, ...] = ()
    worker_variables: tuple[str, ...] = ()
    network: NetworkSettings = NetworkSettings()
    snapshot_dir: Path | None = None
    store: Path | None = None

    @property
    def inference(self) -> Address:
        """Where the inference API listens."""
        return Address(self.host, self.port)

    @property
    def is_management_guarded(self) -> bool:
        """Whether changes of models need a key, or come from this machine only."""
        return self.has_keys or self.at(self.management).is_loopback

    @property
    def may_change_models(self) -> bool:
        """Whether management calls that change models are taken at all."""
        return self.is_management_guarded if self.enable_model_api is None else self.enable_model_api

    def at(self, address: Address) -> WebSpec:
        """The spec of the listener at one of the three addresses."""
        fields = {name: getattr(self, name) for name in WebSpec.__struct_fields__}
        return WebSpec(**(fields | {"host": address.host, "port": address.port}))


def check_torchserve_spec(spec: TorchServeSpec) -> None:
    """Refuse what cannot be served, or would be open to everyone unasked (D-16). Raises: SpecError."""
    for address in (spec.inference, spec.management, spec.metrics):
        check_web_spec(spec.at(address))
    if spec.uds is not None:
        raise SpecError("--uds is one socket, and TorchServe's APIs are three: give addresses in config.properties")
    if spec.model_store is None:
        raise SpecError("no model store: pass --model-store DIR, or write model_store=DIR into config.properties")
    if not spec.model_store.is_dir():
        raise SpecError(f"model store {spec.model_store} is no directory: make it, or pass another --model-store")
