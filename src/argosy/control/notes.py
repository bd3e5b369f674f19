"""What a decision wants to be told as events; who writes them down is `events.py`."""

from __future__ import annotations

import msgspec

from argosy.control.reasons import EventReason
from argosy.core.metadata import EventKind


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. subject: a revision (`v2`), a replica; "" = the service itself."""

    reason: EventReason
    message: str
    subject: str = ""
    kind: EventKind = EventKind.NORMAL


def warning(reason: EventReason, message: str, subject: str = "") -> Note:
    """Something that should not be."""
    return Note(reason=reason, message=message, subject=subject, kind=EventKind.WARNING)
