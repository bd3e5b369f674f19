"""What a benchmark leaves: a JSON file with everything, and a Markdown row for docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from argosy.evals.probe import MachineTimes, machine_times, steal_ratio

RESULTS = Path(__file__).parents[1] / "results"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure over all rounds: median [smallest to largest], its unit and the bar it is held against.

    is_floor: the bar is a lower limit; else an upper one. detail: both sides, as the row shows them.
    """

    what: str
    values: list[float]
    unit: str
    bar: float | None = None
    is_floor: bool = True
    detail: str = ""

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool:
        """Whether the median keeps to the bar."""
        if self.bar is None:
            return True
        return self.median >= self.bar if self.is_floor else self.median <= self.bar

    def row(self, steal: float) -> str:
        """The Markdown row: what, median [range], bar, met, both sides, steal."""
        sign = "≥" if self.is_floor else "≤"
        bar = "–" if self.bar is None else f"{sign} {self.bar:g}{self.unit}"
        shown = f"{self.median:.4g}{self.unit} [{min(self.values):.4g}–{max(self.values):.4g}]"
        return f"| {self.what} | {shown} | {bar} | {'yes' if self.is_met else 'no'} | {self.detail} | {steal:.1%} |"


class Run:
    """One run of a benchmark: remembers the machine at its beginning, writes the results at its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._began: MachineTimes = machine_times()
        self.rounds: list[dict[str, Any]] = []

    def note(self, **facts: Any) -> None:
        """Keep the facts of one round, and show them."""
        self.rounds.append(facts)
        print("  " + "  ".join(f"{key} {_short(value)}" for key, value in facts.items()), flush=True)

    def finish(self, figures: Sequence[Figure], **facts: Any) -> list[Figure]:
        """Write results/NAME.json and print the rows."""
        steal = steal_ratio(self._began, machine_times())
        RESULTS.mkdir(exist_ok=True)
        written = {
            "benchmark": self.name,
            "measured_at": datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": machine_facts(),
            "steal_ratio": steal,
            "figures": [{**msgspec.to_builtins(one), "median": one.median, "is_met": one.is_met} for one in figures],
            "facts": facts,
            "rounds": self.rounds,
        }
        path = RESULTS / f"{self.name}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n")
        for one in figures:
            print(one.row(steal))
        print(f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
        return list(figures)


def machine_facts() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, memory, Python, kernel, load of others."""
    cpu: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        cpu.setdefault(key.strip(), value.strip())
    wanted = {"avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "avx2"}
    return {
        "processor": cpu.get("model name", platform.machine()),
        "features": sorted(wanted & set(cpu.get("flags", "").split())),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_average_at_end": os.getloadavg()[0],
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
