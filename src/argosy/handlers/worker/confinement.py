"""What a worker is before any code of an archive runs in it: limited, in a group of its own, ended with its parent.

The memory limit counts private memory (heap, anonymous maps, thread stacks), beyond what the process starts with: what
it shares with the nursery is not its own. Native allocators fail at the limit, so Python raises MemoryError.
Source: setrlimit(2) RLIMIT_DATA, prctl(2) PR_SET_PDEATHSIG, proc(5) `VmData`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from argosy.handlers.worker.messages import Limits

_PR_SET_PDEATHSIG = 1
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends. Linux; elsewhere the end of the socket does it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def stand_apart() -> None:
    """Lead a process group, and leave the signals that ask a server to stop to the server: it drains first."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not SIG_IGN: that would be inherited by what a handler starts, which it could then not terminate.
        signal.signal(number, lambda received, stack: None)


def limit(limits: Limits) -> None:
    """Take the limits upon this process. Threads: for libraries that read it when imported, and PyTorch if it is."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, limits.open_files)
    if limits.memory_bytes is not None:
        _lower(resource.RLIMIT_DATA, private_bytes() + limits.memory_bytes)
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(limits.threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(limits.threads)


def private_bytes() -> int:
    """Private writable memory that this process maps now; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
