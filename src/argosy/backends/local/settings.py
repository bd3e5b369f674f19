"""How patient the local backend is with its replicas."""

from __future__ import annotations

import msgspec

from argosy.backends.restarts import DEFAULT_RESTARTS, RestartPolicy


class LocalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """restarts: the waits after crashes.

    farewell_seconds: between the moment a replica is listed as draining and SIGTERM: those who route to it learn of
    it first, so that it is not sent requests it must refuse.
    """

    restarts: RestartPolicy = DEFAULT_RESTARTS
    farewell_seconds: float = 0.5
