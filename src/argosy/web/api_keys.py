"""API keys: created once, shown once, kept as SHA-256 digests in a file only its owner can read.

A key carries 256 random bits, so a plain fast hash is enough: there is nothing to guess, and each request costs one
hash. (Slow hashes are for passwords, which people choose.) Every stored digest is compared in constant time.
Imported by `argosy keys` as well; knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from argosy.core.errors import Conflict, InvalidRequest, NotFound, SpecError
from argosy.core.model import require_name
from argosy.core.principal import Principal, Scope

_PREFIX = "ak-"
_KEY_BYTES = 32

_LARGEST_LIMIT = 10**12

_Limit = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST_LIMIT)]


class StoredKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the key file. sha256: hex digest of the key. created: unix seconds.

    requests_per_minute, tokens_per_minute: limits at a gateway (docs/quotas-and-cache.md); None = none.
    """

    name: str
    sha256: str
    scopes: tuple[Scope, ...] = (Scope.INFER,)
    created: int = 0
    requests_per_minute: _Limit | None = None
    tokens_per_minute: _Limit | None = None

    @property
    def principal(self) -> Principal:
        """Who calls with this key."""
        return Principal(
            name=self.name,
            scopes=frozenset(self.scopes),
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
        )


class KeyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    keys: tuple[StoredKey, ...] = ()


class ApiKeys:
    """The keys a server accepts. Empty: everyone is welcome, and nobody has a name."""

    def __init__(self, keys: Iterable[StoredKey] = ()) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key.principal) for key in keys]

    def __bool__(self) -> bool:
        """Whether callers need a key."""
        return bool(self._keys)

    def principal(self, presented: str) -> Principal | None:
        """Whose key this is. Takes the same time whichever digest matches, or none."""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        found: Principal | None = None
        for known, principal in self._keys:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


class WatchedKeys(ApiKeys):
    """The keys of a file as it is now, and keys that stay: a revoked key stops working with the next request.

    A file that cannot be read any more changes nothing but `on_failure`, which is called once per change of the file.
    An emptied file lets nobody in.
    """

    def __init__(self, path: Path, more: Iterable[StoredKey], on_failure: Callable[[SpecError], None]) -> None:
        """Raises: SpecError if the file cannot be used now."""
        self._path = path
        self._more = tuple(more)
        self._on_failure = on_failure
        self._stamp = _stamp(path)  # taken before reading: what changes meanwhile is seen with the next request
        super().__init__([*read_keys(path).keys, *self._more])

    def __bool__(self) -> bool:
        """Callers need a key, even while the file holds none."""
        return True

    def principal(self, presented: str) -> Principal | None:
        """Whose key this is. One `stat` more than without a file."""
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                super().__init__([*read_keys(self._path).keys, *self._more])
            except SpecError as error:
                self._on_failure(error)
        return super().principal(presented)


def _stamp(path: Path) -> tuple[int, ...]:
    """What differs whenever the file was replaced, written or given other rights; empty if there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def digest_of(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def plain_keys(keys: Iterable[str]) -> list[StoredKey]:
    """Keys given on the command line: all scopes, numbered names."""
    return [
        StoredKey(name=f"key-{number}", sha256=digest_of(key), scopes=tuple(Scope))
        for number, key in enumerate(keys, start=1)
    ]


def read_keys(path: Path) -> KeyFile:
    """The keys in a file. Raises: SpecError if it is missing, malformed, or readable by others."""
    try:
        content = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as exc:
        raise SpecError(
            f"API key file {path} cannot be read ({exc.strerror}): create one with "
            f"`argosy keys create NAME --file {path}`"
        ) from exc
    if mode & 0o077:
        raise SpecError(f"API key file {path} is open to other users: run `chmod 600 {path}`")
    try:
        stored = msgspec.json.decode(content, type=KeyFile)
        for key in stored.keys:
            if len(bytes.fromhex(key.sha256)) != hashlib.sha256().digest_size:
                raise ValueError(f"key {key.name!r} has no SHA-256 digest")
    except (msgspec.DecodeError, ValueError) as exc:
        raise SpecError(f"API key file {path} is malformed: {exc}: create it again with `argosy keys`") from exc
    return stored


def create_key(
    path: Path,
    name: str,
    scopes: tuple[Scope, ...],
    *,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> str:
    """Add a key to the file, which is made if absent, and return the key itself: it cannot be shown again.

    Raises: Conflict if the name is taken; InvalidRequest if it is no name or a limit is below 1; SpecError.
    """
    require_name(name, "key name")
    for flag, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute)):
        if limit is not None and not 1 <= limit <= _LARGEST_LIMIT:
            raise InvalidRequest(
                f"--{flag}-per-minute {limit} is no limit: give 1 to {_LARGEST_LIMIT}, or leave it out for none",
                param=f"{flag}-per-minute",
            )
    stored = read_keys(path) if path.exists() else KeyFile()
    if any(key.name == name for key in stored.keys):
        raise Conflict(f"{path} has a key named {name!r} already: revoke it first, or choose another name")
    key = _PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    added = StoredKey(
        name=name,
        sha256=digest_of(key),
        scopes=scopes,
        created=int(time.time()),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    _write(path, KeyFile(keys=(*stored.keys, added)))
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of the file; running servers refuse it from then on. Raises: NotFound, SpecError."""
    stored = read_keys(path)
    kept = tuple(key for key in stored.keys if key.name != name)
    if len(kept) == len(stored.keys):
        names = ", ".join(key.name for key in kept) or "none"
        raise NotFound(f"{path} has no key named {name!r}: it has {names}")
    _write(path, KeyFile(keys=kept))


def _write(path: Path, stored: KeyFile) -> None:
    """Replace the file in one step; it is never open to others, not even for a moment."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise SpecError(f"API key file {path} cannot be written ({exc.strerror}): choose another --file") from exc
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
