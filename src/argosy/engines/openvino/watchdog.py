"""Is a silent child computing, or hung? Pure decisions over what /proc says of it. F-04."""

from __future__ import annotations

from pathlib import Path

import msgspec

# How long a child that owes an answer may be silent without using any CPU, by the state of its main thread
# (proc(5)). Stopped or traced: it will not come back by itself. Asleep: its threads may be starved by neighbours on
# a busy machine, so more patience. Runnable or waiting for a disk: only the limit for one step applies.
PATIENCE_SECONDS = {"T": 2.0, "t": 2.0, "Z": 2.0, "X": 2.0, "S": 20.0}
# Native code that loops for ever burns CPU: no honest step takes this long on supported machines.
STEP_TIMEOUT_SECONDS = 120.0
_PROGRESS_CPU_SECONDS = 0.02


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the child at one moment. Units: seconds, monotonic and of CPU. state: as in proc(5)."""

    now: float
    cpu_seconds: float = 0.0
    state: str = "R"


def has_progressed(earlier: Pulse, current: Pulse) -> bool:
    """Whether the process worked in between."""
    return current.cpu_seconds - earlier.cpu_seconds >= _PROGRESS_CPU_SECONDS


def hang_reason(last_message: float, last_progress: Pulse, current: Pulse) -> str | None:
    """Why a child that owes an answer counts as hung, or None.

    Units: last_message in seconds, when it last reported. last_progress: the latest pulse with more CPU time.
    """
    silent = current.now - last_message
    if silent > STEP_TIMEOUT_SECONDS:
        return f"one step took longer than {STEP_TIMEOUT_SECONDS:.0f} s"
    stalled = current.now - max(last_progress.now, last_message)
    patience = PATIENCE_SECONDS.get(current.state, STEP_TIMEOUT_SECONDS)
    if stalled > patience:
        return f"it was silent and used no CPU for {stalled:.1f} s, in state {current.state}"
    return None


def read_pulse(pid: int, now: float, ticks_per_second: int) -> Pulse:
    """The process now. Where there is no /proc it counts as running, and only the limit for one step applies.

    Source: proc(5): after the command's name in parentheses, field 1 is the state, 12 and 13 are CPU ticks.
    """
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return Pulse(now=now)
    fields = line.rpartition(")")[2].split()
    return Pulse(now=now, cpu_seconds=(int(fields[11]) + int(fields[12])) / ticks_per_second, state=fields[0])
