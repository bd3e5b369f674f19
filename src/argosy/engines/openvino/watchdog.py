"""Is a silent child computing, or hung? One pure decision over two observations."""

from __future__ import annotations

from pathlib import Path

import msgspec

# A long prefill is silent for seconds but burns CPU; a stopped or dead-locked process burns none. F-04 asks that a
# hang be noticed in 3 s.
STALL_SECONDS = 3.0
# Native code that loops for ever burns CPU: no honest step takes this long on supported machines.
STEP_TIMEOUT_SECONDS = 120.0
_PROGRESS_CPU_SECONDS = 0.05


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the child at one moment. Units: seconds, monotonic and of CPU."""

    now: float
    cpu_seconds: float


def hang_reason(at_last_message: Pulse, at_last_progress: Pulse, current: Pulse) -> str | None:
    """Why the child counts as hung, or None. For a child that owes an answer.

    at_last_message: when it last reported. at_last_progress: the latest pulse at which its CPU time had grown.
    """
    silent = current.now - at_last_message.now
    if silent > STEP_TIMEOUT_SECONDS:
        return f"one step took longer than {STEP_TIMEOUT_SECONDS:.0f} s"
    stalled = current.now - max(at_last_progress.now, at_last_message.now)
    if stalled > STALL_SECONDS:
        return f"it was silent and used no CPU for {stalled:.1f} s"
    return None


def has_progressed(earlier: Pulse, current: Pulse) -> bool:
    """Whether the process worked in between."""
    return current.cpu_seconds - earlier.cpu_seconds >= _PROGRESS_CPU_SECONDS


def cpu_seconds(stat_line: str, ticks_per_second: int) -> float:
    """CPU time of a process from its /proc/PID/stat. Source: proc(5), fields 14 and 15 after the command name."""
    fields = stat_line.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks_per_second


def read_stat(pid: int) -> str | None:
    """/proc/PID/stat, or None where there is none (another system, or the process is gone)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
