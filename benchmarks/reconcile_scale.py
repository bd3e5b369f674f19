"""What a pass of the control loop costs: 100, 300 and 1,000 services of 10 replicas each, on the fake backend.

Four passes are measured, store and backend calls included. Cold: a new control plane meets declared services, nothing
runs. Restarted: a new control plane meets all that runs. Full: everything is read and decided anew, nothing has
changed, as every `resync_seconds`. Quiet: a pass that was woken for nothing. Half the services scale by load, and a
gateway reports on all. Growth is a full pass's time per service at 1,000 services against that at 100: 1 is linear,
10 would be quadratic.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Awaitable, Callable

from argosy.backends.fake import FakeBackend
from argosy.control.loop import ControlLoop
from argosy.control.settings import ControlSettings
from argosy.core.inference_service import InferenceService, InferenceServiceSpec, RevisionTemplate
from argosy.core.load_report import GatewayReport, ReplicaLoad, ReplicaReport, RevisionTraffic, ServiceTraffic
from argosy.core.metadata import Metadata
from argosy.core.scaling import ScalingPolicy
from argosy.stores.memory import MemoryStore
from benchmarks.figures import Figure, Run

REPLICAS = 10
SIZES = (100, 300, 1000)
_BAR_SECONDS = 1.0


class Fleet:
    """Services, store and backend on a clock of their own."""

    def __init__(self, services: int) -> None:
        self.now = 1_000_000.0
        self.services = services
        self.store, self.backend = MemoryStore(self.clock), FakeBackend(self.clock)
        self.loop = self.control()

    def clock(self) -> float:
        """Virtual seconds."""
        return self.now

    def control(self) -> ControlLoop:
        """A control plane that has just started."""
        return ControlLoop(self.store, self.backend, ControlSettings(program=("argosy",)), clock=self.clock)

    async def declare(self) -> None:
        """Every second one scales by load."""
        for number in range(self.services):
            spec = InferenceServiceSpec(
                template=RevisionTemplate(model="smollm2"),
                scaling=ScalingPolicy(min_replicas=REPLICAS, max_replicas=REPLICAS + number % 2),
            )
            await self.store.put(InferenceService(metadata=Metadata(name=f"service-{number:04}"), spec=spec))

    def report(self) -> GatewayReport:
        """A gateway with some load on every replica."""
        report = ReplicaReport(epoch="one", phase="ready", num_requests_running=1, max_num_seqs=8)
        traffic = RevisionTraffic(revision="v1", requests=int(self.now), completions=int(self.now))
        return GatewayReport(
            epoch="one",
            services=tuple(
                ServiceTraffic(
                    service=name,
                    arrivals=int(self.now),
                    revisions=(traffic,),
                    replicas=tuple(
                        ReplicaLoad(replica=each.name, revision="v1", reported_seconds_ago=0.1, report=report)
                        for status in statuses
                        for each in status.ready()
                    ),
                )
                for name, statuses in self.loop.world.statuses.items()
            ),
        )

    async def settle(self) -> None:
        """Until all replicas are ready and every status says so."""
        for _ in range(40):
            self.now += 1.0
            self.loop.record_report("gateway", self.report())
            await self.loop.look()


async def seconds_of(act: Callable[[], Awaitable[None]]) -> float:
    """How long it takes, garbage collected before."""
    gc.collect()
    began = time.perf_counter()
    await act()
    return time.perf_counter() - began


async def measure(services: int) -> dict[str, float]:
    """Seconds of each kind of pass."""
    fleet = Fleet(services)
    await fleet.declare()
    found = {"cold": await seconds_of(fleet.loop.look)}
    await fleet.settle()
    ready = sum(len(each.ready()) for rows in fleet.loop.world.statuses.values() for each in rows)
    assert ready == services * REPLICAS, f"{ready} replicas are ready, of {services * REPLICAS}"
    fleet.now += fleet.loop.settings.resync_seconds
    fleet.loop.record_report("gateway", fleet.report())
    found["full"] = await seconds_of(fleet.loop.look)
    found["quiet"] = await seconds_of(fleet.loop.look)
    fleet.loop = fleet.control()
    found["restarted"] = await seconds_of(fleet.loop.look)
    return found


def main(arguments: list[str]) -> int:
    """Measure all sizes; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks reconcile_scale", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    run = Run("reconcile_scale")
    passes: dict[int, dict[str, list[float]]] = {size: {} for size in SIZES}
    for _ in range(options.rounds):
        for size in SIZES:
            found = asyncio.run(measure(size))
            run.note(services=size, replicas=size * REPLICAS, **found)
            for name, seconds in found.items():
                passes[size].setdefault(name, []).append(seconds)
    first, last = SIZES[0], SIZES[-1]
    pairs = zip(passes[first]["full"], passes[last]["full"], strict=True)
    growth = [(many / last) / (few / first) for few, many in pairs]
    figures = [
        Figure(
            what=f"a {name} pass over {last:,} services, {last * REPLICAS:,} replicas",
            values=values,
            unit=" s",
            bar=_BAR_SECONDS,
            is_floor=False,
        )
        for name, values in passes[last].items()
    ]
    figures.append(
        Figure(
            what=f"a full pass's time per service, {last:,} services against {first}",
            values=growth,
            unit="×",
            bar=2.0,
            is_floor=False,
        )
    )
    return 0 if all(one.is_met for one in run.finish(figures)) else 1
