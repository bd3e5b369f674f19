"""Where a control plane on one machine keeps what must outlive it, and where clients find it and its key."""

from __future__ import annotations

from pathlib import Path

import msgspec

from argosy.core.environment import read_environment


class StateDir(msgspec.Struct, frozen=True):
    """The names below one root, which only its owner may enter (mode 0700).

    store: desired state. lock: held by the one control plane that may run here. control_file: its address, in JSON.
    admin_key: the key of the control plane's API, in the clear, for commands of the same user and for the gateway;
    admin_keys_file: its digest, for the API. replica_key, replica_keys_file: the same between gateway and replicas.
    """

    root: Path

    @property
    def store(self) -> Path:
        """The SQLite file."""
        return self.root / "store.sqlite"

    @property
    def lock(self) -> Path:
        """Locked (flock) while a control plane runs; holds its process id."""
        return self.root / "lock"

    @property
    def control_file(self) -> Path:
        """A `ControlAddress`, while a control plane runs."""
        return self.root / "control.json"

    @property
    def admin_key(self) -> Path:
        """Mode 0600."""
        return self.root / "admin.key"

    @property
    def admin_keys_file(self) -> Path:
        """What `argosy keys` would write."""
        return self.root / "admin-keys.json"

    @property
    def replica_key(self) -> Path:
        """Mode 0600."""
        return self.root / "replica.key"

    @property
    def replica_keys_file(self) -> Path:
        """What `argosy keys` would write."""
        return self.root / "replica-keys.json"

    @property
    def backend(self) -> Path:
        """What the local backend remembers of its processes."""
        return self.root / "backend"

    @property
    def logs(self) -> Path:
        """What replicas and the gateway wrote."""
        return self.root / "logs"

    @property
    def gateway_config(self) -> Path:
        """What `argosy up` tells its gateway, as `argosy gateway --config` reads it; mode 0600."""
        return self.root / "gateway.json"


class ControlAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running control plane and its gateway listen. gateway_url: "" without a gateway."""

    url: str
    gateway_url: str = ""
    process_id: int


def default_state_dir() -> StateDir:
    """The user's own: $XDG_STATE_HOME/argosy, or ~/.local/state/argosy."""
    home = read_environment().state_home
    return StateDir((Path(home) if home else Path.home() / ".local" / "state") / "argosy")
