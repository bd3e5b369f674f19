"""What every store does alike, as pure functions: which kinds there are, how they are written, what a write makes.

A store adds to this only where the records lie, and the number that grows with every write.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from argosy.core.errors import Conflict, InvalidRequest, NotFound, StoreError
from argosy.core.inference_service import InferenceService, Revision
from argosy.core.interfaces import Resource
from argosy.core.metadata import Event

R = TypeVar("R", bound=Resource)


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How many records of a kind are kept, the last written ones: of each family, and in all."""

    max_per_family: int
    max_records: int


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of resource. family: which records count together; retention: None = all are kept."""

    resource: type
    family: Callable[[Any], str] = lambda _: ""
    retention: Retention | None = None

    @property
    def name(self) -> str:
        """What it is called in a store."""
        return self.resource.__name__


_TABLE = (
    Kind(resource=InferenceService),
    Kind(resource=Revision),
    Kind(
        resource=Event,
        family=lambda event: cast(Event, event).service,
        retention=Retention(max_per_family=1_000, max_records=20_000),
    ),
)
KINDS = {kind.name: kind for kind in _TABLE}


def kind_of(resource: type) -> Kind:
    """The row of the table; a type that is not in it is a mistake of ours."""
    return KINDS[resource.__name__]


def encoded(resource: Resource) -> bytes:
    """The record's bytes. Raises: InvalidRequest if they would not read back the same (NaN, surrogates, paths)."""
    try:
        body = msgspec.json.encode(resource)
        resource.metadata.name.encode()
        if msgspec.json.decode(body, type=type(resource)) == resource:
            return body
        reason = "it would read back as something else"
    except (msgspec.ValidationError, UnicodeEncodeError, TypeError) as exc:
        reason = str(exc)
    raise InvalidRequest(
        f"{_called(resource)} cannot be stored ({reason}): give it finite numbers, Unicode text and nothing JSON lacks"
    )


def decoded(kind: type[R], name: str, body: bytes) -> R:
    """The resource of a record. Raises: StoreError naming it."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as exc:
        raise StoreError(
            f"the stored {kind.__name__} {name!r} cannot be read ({exc}): it was written by another version of "
            "Argosy, or the file is damaged; use that version, or choose another --state"
        ) from exc


def after_put(current: R | None, given: R, version: int, now: float) -> R:
    """What `put` makes of `given`; `current` itself if that changes nothing. Raises: Conflict.

    Units: now in unix seconds. Source: generation and resourceVersion of the Kubernetes API conventions.
    """
    if current is None:
        if given.metadata.resource_version:
            raise _outdated(given, "it was deleted meanwhile")
        stamped = msgspec.structs.replace(
            given.metadata, uid=secrets.token_hex(16), generation=1, resource_version=version, created_at=now
        )
        return _with(given, metadata=stamped)
    if not given.metadata.resource_version:
        raise Conflict(f"{_called(given)} exists already: read it and change what was read, or choose another name")
    _check_version(current, given)
    parts: dict[str, Any] = {"metadata": msgspec.structs.replace(current.metadata, labels=given.metadata.labels)}
    if hasattr(current, "status"):
        parts["status"] = current.status
    merged = _with(given, **parts)
    if merged == current:
        return current
    has_new_spec = getattr(merged, "spec", None) != getattr(current, "spec", None)
    stamped = msgspec.structs.replace(
        merged.metadata, resource_version=version, generation=current.metadata.generation + has_new_spec
    )
    return _with(merged, metadata=stamped)


def after_put_status(current: R | None, given: R, version: int) -> R:
    """What `put_status` makes of `given`; `current` itself if that changes nothing. Raises: NotFound, Conflict."""
    if current is None:
        raise absent(type(given), given.metadata.name)
    _check_version(current, given)
    status = cast(Any, given).status
    if status == cast(Any, current).status:
        return current
    return _with(current, status=status, metadata=msgspec.structs.replace(current.metadata, resource_version=version))


def as_deleted(last: R, version: int) -> R:
    """A resource's last state, under the version of its deletion."""
    return _with(last, metadata=msgspec.structs.replace(last.metadata, resource_version=version))


def absent(kind: type, name: str) -> NotFound:
    """The error for a name nobody has."""
    return NotFound(f"there is no {kind.__name__} named {name!r}: list them to see the names")


def _check_version(current: Resource, given: Resource) -> None:
    """Raises: Conflict unless `given` is based on `current`."""
    is_version, was_version = current.metadata.resource_version, given.metadata.resource_version
    if is_version != was_version:
        raise _outdated(given, f"it is at version {is_version} now, and this is based on {was_version}")


def _outdated(given: Resource, how: str) -> Conflict:
    return Conflict(f"{_called(given)} changed since it was read: {how}; read it again and repeat the change")


def _called(resource: Resource) -> str:
    return f"{type(resource).__name__} {resource.metadata.name!r}"


def _with(resource: R, **changes: Any) -> R:
    return cast(R, msgspec.structs.replace(cast(Any, resource), **changes))
