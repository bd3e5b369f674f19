"""Runs one history of writes over and over in processes of its own, each of which is killed, or fails, at a later call.

    python crash_child.py ROOT FAULT BULK FIRST STEP COUNT

SQLite lets its system calls be replaced (`sqlite3_vfs.xSetSystemCall`). Run i arms the (FIRST + i * STEP)-th of the
calls that change a file: with FAULT `kill` the process dies there as by kill -9, with `torn` after half of the bytes,
with `EIO`, `ENOSPC` or `EROFS` this call and all later ones fail so. What each run was told is durable is printed as
JSON: one line [point, how it ended, acknowledged steps, failed steps] per run; it ends before COUNT runs when a run
had no such call. The file of run i stays in ROOT/i.

Source: sqlite.org/c3ref/vfs.html; os_unix.c, `aSyscall`.
"""

from __future__ import annotations

import _sqlite3
import asyncio
import ctypes
import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from argosy.core.errors import StoreError
from argosy.stores.sqlite import SqliteStore

sys.path.insert(0, str(Path(__file__).parent))
from history import NOW, play

CHANGING = ("write", "pwrite", "pwrite64", "ftruncate", "unlink")
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "write": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t),
    "pwrite": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long),
    "pwrite64": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long),
    "ftruncate": (ctypes.c_int, ctypes.c_int, ctypes.c_long),
    "unlink": (ctypes.c_int, ctypes.c_char_p),
}


class Vfs(ctypes.Structure):
    """The head of sqlite3_vfs, up to what is needed."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("max_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("app", ctypes.c_void_p),
        ("calls", ctypes.c_void_p * 13),
        ("set_system_call", ctypes.c_void_p),
        ("get_system_call", ctypes.c_void_p),
    )


class Faults:
    """Replaces SQLite's system calls by ones that count, and fail when it is time."""

    def __init__(self, fault: str, point: int) -> None:
        self.fault = fault
        self.left = point
        self.kept: list[Any] = []
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
        vfs = library.sqlite3_vfs_find(None)
        setter = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
            vfs.contents.set_system_call
        )
        getter = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(vfs.contents.get_system_call)
        for name in CHANGING:
            address = getter(vfs, name.encode())
            if address:
                kind = ctypes.CFUNCTYPE(*SIGNATURES[name], use_errno=True)
                replaced = kind(self.guarded(kind(address)))
                self.kept.append(replaced)
                assert setter(vfs, name.encode(), ctypes.cast(replaced, ctypes.c_void_p)) == 0

    def guarded(self, call: Any) -> Any:
        def instead(*arguments: Any) -> int:
            self.left -= 1
            if self.left > 0:
                return int(call(*arguments))
            if self.fault in ("kill", "torn"):
                if self.fault == "torn" and len(arguments) >= 3:
                    call(*arguments[:2], arguments[2] // 2, *arguments[3:])
                os.kill(os.getpid(), signal.SIGKILL)
            ctypes.set_errno(getattr(errno, self.fault))
            return -1

        return instead


async def live(path: Path, bulk: int, told: int) -> None:
    def tell(kind: str, step: int) -> None:
        os.write(told, f"{kind}{step}\n".encode())

    try:
        async with SqliteStore(path, clock=lambda: NOW) as store:
            await play(store, bulk, acknowledged=lambda step: tell("a", step), failed=lambda step: tell("f", step))
    except StoreError:
        tell("f", -1)


def run(path: Path, fault: str, point: int, bulk: int) -> tuple[str, list[int], list[int]]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        faults = Faults(fault, point)
        asyncio.run(live(path, bulk, writer))
        os._exit(0 if faults.left > 0 else 1)
    os.close(writer)
    with os.fdopen(reader) as lines:
        said = lines.read().split()
    _, status = os.waitpid(child, 0)
    ended = "killed" if os.WIFSIGNALED(status) else ("untouched", "failed")[os.WEXITSTATUS(status)]
    return ended, [int(each[1:]) for each in said if each[0] == "a"], [int(each[1:]) for each in said if each[0] == "f"]


def main() -> None:
    root, fault = Path(sys.argv[1]), sys.argv[2]
    bulk, first, step, count = map(int, sys.argv[3:7])
    for number in range(count):
        point = first + number * step
        ended, acknowledged, failed = run(root / str(point) / "store.sqlite", fault, point, bulk)
        print(json.dumps([point, ended, acknowledged, failed]), flush=True)
        if ended == "untouched":
            return


main()
