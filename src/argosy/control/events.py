"""Notes become stored events. The same thing again is counted, not written anew: its name is made of what it says."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from argosy.control.notes import Note
from argosy.core.errors import Conflict, NotFound
from argosy.core.interfaces import Store
from argosy.core.metadata import Event, Metadata

_TRIES = 3


def event_of(service: str, note: Note, now: float) -> Event:
    """The event of a note, as it is when it happens for the first time. Units: now in unix seconds."""
    subject = note.subject or service
    told = "\0".join((subject, note.kind.value, note.reason.value, note.message))
    digest = blake2b(told.encode(), digest_size=8).hexdigest()
    return Event(
        metadata=Metadata(name=f"{service}-{digest}"),
        service=service,
        subject=subject,
        kind=note.kind,
        reason=note.reason.value,
        message=note.message,
        first_at=now,
        last_at=now,
    )


async def write_event(store: Store, service: str, note: Note, now: float) -> Event:
    """Store a note, or count it once more. Cancels: it is stored, or not. Raises: StoreError, Conflict."""
    made = event_of(service, note, now)
    for _ in range(_TRIES):
        try:
            old = await store.get(Event, made.metadata.name)
            made = msgspec.structs.replace(old, count=old.count + 1, last_at=now)
        except NotFound:
            made = event_of(service, note, now)
        try:
            return await store.put(made)
        except Conflict:
            continue
    raise Conflict(f"event {made.metadata.name!r} of {service!r} is written by somebody else again and again")
