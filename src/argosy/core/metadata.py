"""What every stored resource carries beside its spec and status, and how it tells how it is."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Identity and versions of a resource. Written by the store; 0 = not stored yet.

    generation: grows when the spec changes. resource_version: grows with every write, over all resources; a write
    must name the one it is based on. created_at: unix seconds.
    Source: the object metadata of Kubernetes.
    """

    name: str
    uid: str = ""
    generation: int = 0
    resource_version: int = 0
    created_at: float = 0.0
    labels: dict[str, str] = {}


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that holds or does not, and why.

    type: `Ready`, `Progressing`, `Scaling`. reason: one CamelCase word (docs/events.md). message: a sentence.
    last_transition_at: unix seconds of the last change of `status`.
    Source: Kubernetes API conventions.
    """

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    last_transition_at: float = 0.0


class EventKind(StrEnum):
    """Whether an event is how things should go."""

    NORMAL = "Normal"
    WARNING = "Warning"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a service. The same thing again raises `count` and `last_at` instead of a new event.

    subject: the service, revision, replica or gateway it happened to. reason: one word of docs/events.md.
    """

    metadata: Metadata
    service: str
    subject: str
    kind: EventKind = EventKind.NORMAL
    reason: str
    message: str
    count: int = 1
    first_at: float = 0.0
    last_at: float = 0.0
