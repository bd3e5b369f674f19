"""Replicas, gateway and control plane are killed at random moments under load. What is left must be right.

One service with two replicas, requests at a steady rate, and every few seconds something is ended with SIGKILL, or a
replica or the gateway is stopped with SIGSTOP; sometimes two at once. The control plane is started again as a
supervisor would. Checked: every request has exactly one ending (`endings.py`); everything comes back; at no time two
processes are one replica; in the end what runs is what is declared; and after ^C no process is left and no port open.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import statistics
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from argosy.backends.local.processes import TokenBearer, is_alive, token_bearers
from argosy.core.errors import ArgosyError
from argosy.core.state_dir import StateDir
from argosy.core.workload import ReplicaPhase
from benchmarks.cloud import Cloud, cloud
from benchmarks.endings import Kind, Load, echo_spec
from benchmarks.figures import Figure, Run
from benchmarks.servers import is_ready

_NAME = "chat"
_REPLICAS = 2
_MEAN_PAUSE_SECONDS = 6.0
_TWO_AT_ONCE = 0.2
_LOOK_SECONDS = 0.05
_WATCH_SECONDS = 0.25
# Killed again and again, a replica's next start is put off by up to a minute.
_MAX_RECOVERY_SECONDS = 120.0
_FAULTS = ("replica killed", "replica stopped", "gateway killed", "gateway stopped", "control plane killed")


class Recovery(msgspec.Struct, frozen=True):
    """How long it took after a fault until all was as declared and a request was answered."""

    faults: tuple[str, ...]
    seconds: float


class Chaos:
    """Breaks a cloud, and sees to it that the control plane comes back."""

    def __init__(self, running: Cloud, load: Load, seed: int) -> None:
        self.recoveries: list[Recovery] = []
        self.violations: list[str] = []
        self._running = running
        self._load = load
        self._random = random.Random(seed)
        self._prefix = (StateDir(running.state).backend / "identity").read_text().strip() + "/"

    async def run(self, seconds: float) -> None:
        """One fault after the other, for so long. Raises: TimeoutError if the cloud does not recover."""
        until = time.monotonic() + seconds
        while True:
            pause = self._random.expovariate(1 / _MEAN_PAUSE_SECONDS)
            if time.monotonic() + pause > until:
                return
            await asyncio.sleep(pause)
            faults = self._random.sample(_FAULTS, 2 if self._random.random() < _TWO_AT_ONCE else 1)
            began = time.monotonic()
            victims = [await self._break(fault) for fault in faults]
            await self._recovered([each for each in victims if each is not None])
            self.recoveries.append(Recovery(tuple(faults), time.monotonic() - began))
            print(f"  {' and '.join(faults)}: {self.recoveries[-1].seconds:.1f} s", flush=True)

    async def watch(self) -> None:
        """Look for ever whether two living processes are one replica."""
        while True:
            names = Counter(_name(each) for each in await self._leaders())
            self.violations += [f"{count} processes are {name}" for name, count in names.items() if count > 1]
            await asyncio.sleep(_WATCH_SECONDS)

    async def differences(self) -> list[str]:
        """What runs and is not declared, or is declared and does not run."""
        views = await self._running.settled(_NAME, _REPLICAS, 0)
        listed = sorted(view.status.name for view in views)
        alive = sorted(_name(each) for each in await self._leaders() if not _name(each).startswith("gateway-"))
        gateways = len(await self._leaders()) - len(alive)
        found = [] if alive == listed else [f"listed are {listed}, but {alive} run"]
        return found if gateways == 1 else [*found, f"{gateways} gateways run"]

    async def _break(self, fault: str) -> TokenBearer | None:
        """The process that must be gone before all is well again; None for the control plane, which we start again."""
        if fault == "control plane killed":
            self._running.server.kill()
            await asyncio.to_thread(self._running.server.start)
            return None
        is_gateway = fault.startswith("gateway")
        candidates = [each for each in await self._leaders() if _name(each).startswith("gateway-") == is_gateway]
        if not candidates:
            return None
        victim = self._random.choice(candidates)
        if is_gateway:
            self._load.outages.begin()
        with suppress(ProcessLookupError):
            os.kill(victim.identity.pid, signal.SIGSTOP if fault.endswith("stopped") else signal.SIGKILL)
        return victim

    async def _recovered(self, victims: list[TokenBearer]) -> None:
        async with asyncio.timeout(_MAX_RECOVERY_SECONDS):
            while any(is_alive(each.identity) for each in victims) or not await self._is_well():  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)  # other processes have no event to wait for
        self._load.outages.end()

    async def _is_well(self) -> bool:
        if not await asyncio.to_thread(is_ready, f"{self._running.gateway_url}/readyz"):
            return False
        try:
            views = await self._running.client.replicas(_NAME)
        except ArgosyError:
            return False
        ready = [view for view in views if view.status.phase is ReplicaPhase.READY]
        return len(ready) == len(views) == _REPLICAS and await self._load.ask_one()

    async def _leaders(self) -> list[TokenBearer]:
        return [each for each in await asyncio.to_thread(token_bearers, self._prefix) if each.is_leader]


def left_over(state: Path, identity: str) -> list[str]:
    """Living processes that carry the identity in their environment, or the state directory in their command."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if str(state).encode() in command or identity.encode() in (process / "environ").read_bytes():
                found.append(f"process {process.name} is left: {command.replace(bytes(1), b' ').decode()[:120]}")
    return found


def is_open(url: str) -> bool:
    """Whether anybody listens there."""
    place = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((place.hostname, place.port)) == 0


def main(arguments: list[str]) -> int:
    """Break and report; 1 if anything was not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rehearsal", action="store_true", help="write no file")
    return asyncio.run(_measure(parser.parse_args(arguments)))


async def _measure(flags: argparse.Namespace) -> int:
    run = Run("chaos")
    async with cloud() as running:
        await running.declare(_NAME, echo_spec(_REPLICAS))
        await running.settled(_NAME, _REPLICAS, 0)
        load = Load(running.gateway_url, _NAME, flags.rate)
        chaos = Chaos(running, load, flags.seed)
        state, control_url = running.state, running.client.url
        identity = (StateDir(state).backend / "identity").read_text().strip()
        try:
            async with asyncio.TaskGroup() as group:
                watching, loading = group.create_task(chaos.watch()), group.create_task(load.run())
                await chaos.run(flags.seconds)
                load.stop()
                await loading
                watching.cancel()
            violations = [*load.violations(), *chaos.violations, *await chaos.differences()]
        except* (TimeoutError, RuntimeError) as failed:
            last_words = [str(each) or "the cloud did not recover" for each in failed.exceptions]
            violations = [*load.violations(), *chaos.violations, *last_words]
    violations += left_over(state, identity)
    violations += [f"{url} still answers" for url in (running.gateway_url, control_url) if is_open(url)]
    return _report(run, load, chaos, violations, is_rehearsal=flags.rehearsal)


def _report(run: Run, load: Load, chaos: Chaos, violations: list[str], *, is_rehearsal: bool) -> int:
    kinds = Counter(each.kind for each in load.endings)
    for line in violations[:30]:
        print(f"  VIOLATION {line}")
    for said, count in Counter(_class_of(each.said) for each in load.endings if each.said).most_common(12):
        print(f"  {count} × {said}")
    print("\n| requests | " + " | ".join(kind.value for kind in Kind) + " |")
    print("|--:|" + "--:|" * len(Kind))
    print(f"| {len(load.endings)} | " + " | ".join(str(kinds[kind]) for kind in Kind) + " |\n")
    print("| fault | times | recovery p50 | max |\n|---|--:|--:|--:|")
    took: dict[str, list[float]] = {}
    for each in chaos.recoveries:
        took.setdefault(each.faults[0] if len(each.faults) == 1 else "two at once", []).append(each.seconds)
    for fault, seconds in sorted(took.items()):
        print(f"| {fault} | {len(seconds)} | {statistics.median(seconds):.1f} s | {max(seconds):.1f} s |")
    what = "requests without exactly one ending, doubles, orphans, differences"
    detail = f"{len(load.endings)} requests, {len(chaos.recoveries)} faults"
    figure = Figure(what=what, values=[float(len(violations))], unit="", bar=0.0, is_floor=False, detail=detail)
    if is_rehearsal:
        print(figure.row(0.0))
    else:
        run.finish([figure], endings={kind.value: kinds[kind] for kind in Kind}, recoveries=chaos.recoveries)
    return 1 if violations else 0


def _class_of(said: str) -> str:
    """What was said, without the name of a replica."""
    return said.partition(" (replica ")[0][:150]


def _name(bearer: TokenBearer) -> str:
    return bearer.token.split("/")[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
