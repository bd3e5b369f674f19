"""The wire of the control plane's API, as its server and its client both need it: lists, changes, words of a stream."""

from __future__ import annotations

import msgspec

from argosy.core.inference_service import InferenceService, Revision
from argosy.core.metadata import Event
from argosy.core.service_views import ReplicaView

# A stream that has nothing to tell says so this often; a client that hears nothing for three of them gives up.
HEARTBEAT_SECONDS = 10.0
# The name of a server-sent event that carries an error, after which the stream ends.
ERROR_EVENT = "error"


class ServiceList(msgspec.Struct, frozen=True, kw_only=True):
    """All services, by name."""

    items: tuple[InferenceService, ...]


class RevisionList(msgspec.Struct, frozen=True, kw_only=True):
    """A service's revisions, the oldest first."""

    items: tuple[Revision, ...]


class EventList(msgspec.Struct, frozen=True, kw_only=True):
    """Events, the latest last."""

    items: tuple[Event, ...]


class ReplicaList(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas, by service, revision and name."""

    items: tuple[ReplicaView, ...]


class ServiceChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch of services tells: `core.interfaces.Change` of one."""

    resource: InferenceService
    is_deleted: bool = False


class EventChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch of events tells."""

    resource: Event
    is_deleted: bool = False
