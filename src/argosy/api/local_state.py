"""The state directory of a control plane on this machine: made, guarded, locked, announced.

Two control planes on one directory would start everything twice. The lock is the kernel's (flock), so it ends with the
process that holds it, however that ends (F-12).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from argosy.core.errors import Conflict, SpecError
from argosy.core.principal import Scope
from argosy.core.state_dir import ControlAddress, StateDir
from argosy.web.api_keys import create_key

_PRIVATE = 0o077
_LOCK_TRIES = 50
_LOCK_PAUSE_SECONDS = 0.02


def prepare(state: StateDir) -> None:
    """Make the directory and both keys, if they are not there. Raises: SpecError saying what to change."""
    try:
        state.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = state.root.stat().st_mode
        owner = state.root.stat().st_uid
    except OSError as exc:
        raise SpecError(
            f"state directory {state.root} cannot be used ({exc.strerror}): choose another --state"
        ) from exc
    if owner != os.getuid():
        raise SpecError(f"state directory {state.root} belongs to another user: choose your own with --state")
    if mode & _PRIVATE:
        raise SpecError(f"state directory {state.root} is open to other users: run `chmod 700 {state.root}`")
    _make_key(state.admin_key, state.admin_keys_file, "control", Scope.ADMIN)
    _make_key(state.replica_key, state.replica_keys_file, "gateway", Scope.ADMIN)


@contextmanager
def held(state: StateDir) -> Iterator[None]:
    """Hold the directory: no second control plane may use it. Raises: Conflict naming the process that does."""
    descriptor = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, state)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, state: StateDir) -> None:
    """Take the lock. Raises: Conflict if a living control plane has it.

    One that was killed while it started a replica leaves the lock to that child for a moment, until the child runs
    its own program.
    """
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            if not holder.isdigit() or Path(f"/proc/{holder}").exists():
                break
        time.sleep(_LOCK_PAUSE_SECONDS)
    raise Conflict(
        f"a control plane (process {holder or 'unknown'}) uses {state.root} already: stop it, or choose another --state"
    )


@contextmanager
def announced(state: StateDir, address: ControlAddress) -> Iterator[None]:
    """Tell commands of the same user where the control plane is, while it is there."""
    write_private(state.control_file, msgspec.json.encode(address))
    try:
        yield
    finally:
        state.control_file.unlink(missing_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step; only its owner may read it."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    aside.replace(path)


def _make_key(clear: Path, digests: Path, name: str, scope: Scope) -> None:
    """A key in the clear, and the file of its digest; both anew unless both are there."""
    if clear.exists() and digests.exists():
        return
    digests.unlink(missing_ok=True)
    write_private(clear, create_key(digests, name, (scope,)).encode() + b"\n")
