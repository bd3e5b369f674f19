"""What the control plane and the gateway can be told: flags and YAML of `argosy up`, `control` and `gateway`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from argosy.core.web_spec import WebSpec

DEFAULT_CONTROL_PORT = 8100
DEFAULT_CONTROL_URL = f"http://127.0.0.1:{DEFAULT_CONTROL_PORT}"


class ControlSpec(WebSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control plane: API and loop.

    state: directory of the store, of logs and of what runs; None = the user's own. backend: a name of
    `argosy.backends.BACKENDS`. devices: a YAML file that declares devices instead of finding them.
    resync_seconds: how often everything is looked at even if nothing changed. stop_replicas: end them when the
    control plane stops; else they go on, and the next control plane adopts them.
    """

    port: int = DEFAULT_CONTROL_PORT
    state: Path | None = None
    backend: str = "local"
    devices: Path | None = None
    resync_seconds: float = 10.0
    scaling_period_seconds: float = 1.0
    stop_replicas: bool = False


class GatewaySpec(WebSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gateway: one URL in front of all replicas.

    name: unique among the gateways of a control plane. control_url: whose routes it follows; it keeps the last ones
    while the control plane is away. admin_key_file: the key it shows there. replica_key_file: the key replicas ask
    for; clients never see it. report_seconds: how often it asks replicas and tells the control plane.
    """

    name: str = "gateway"
    control_url: str = DEFAULT_CONTROL_URL
    admin_key_file: Path | None = None
    replica_key_file: Path | None = None
    report_seconds: float = 0.25


class UpSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A control plane and a gateway on one machine. The gateway's keys to the control plane are filled in.

    keep_replicas: leave replicas running at the end; else they end with the control plane.
    """

    control: ControlSpec = ControlSpec()
    gateway: GatewaySpec = GatewaySpec()
    keep_replicas: bool = False
