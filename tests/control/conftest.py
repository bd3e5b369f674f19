"""A control plane on a virtual clock: store and replicas in memory, a gateway that reports what a test says it saw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from argosy.backends.fake import FakeBackend
from argosy.control.loop import ControlLoop
from argosy.control.settings import ControlSettings
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceSpec,
    InferenceServiceStatus,
    PromotionPolicy,
    RevisionTemplate,
    RolloutPolicy,
)
from argosy.core.interfaces import Change
from argosy.core.load_report import (
    LATENCY_BOUNDS_SECONDS,
    GatewayReport,
    ReplicaLoad,
    ReplicaReport,
    RevisionTraffic,
    ServiceTraffic,
)
from argosy.core.metadata import Event, Metadata
from argosy.core.scaling import ScalingPolicy
from argosy.core.workload import ReplicaPhase, WorkloadStatus
from argosy.stores.memory import MemoryStore

SETTINGS = ControlSettings(program=("argosy",))


def fixed(replicas: int) -> ScalingPolicy:
    return ScalingPolicy(min_replicas=replicas, max_replicas=replicas)


def spec_of(model: str = "one", replicas: int = 1, **fields: Any) -> InferenceServiceSpec:
    fields.setdefault("scaling", fixed(replicas))
    fields.setdefault("template", RevisionTemplate(model=model))
    return InferenceServiceSpec(**fields)


def service_of(name: str = "chat", **fields: Any) -> InferenceService:
    return InferenceService(metadata=Metadata(name=name), spec=spec_of(**fields))


def buckets(seconds: float, count: int) -> tuple[int, ...]:
    """`count` answers that all took about `seconds`."""
    index = next(i for i, bound in enumerate((*LATENCY_BOUNDS_SECONDS, float("inf"))) if seconds <= bound)
    return tuple(count if i == index else 0 for i in range(len(LATENCY_BOUNDS_SECONDS) + 1))


class Gateway:
    """Counts what it is told it served, and reports the totals as a gateway does."""

    def __init__(self, name: str = "gateway", epoch: str = "one") -> None:
        self.name, self.epoch = name, epoch
        self.revisions: dict[tuple[str, str], RevisionTraffic] = {}
        self.arrivals: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.replicas: dict[str, tuple[ReplicaLoad, ...]] = {}

    def serve(
        self, service: str, revision: str, count: int, *, errors: int = 0, ttft: float = 0.1, tpot: float = 0.02
    ) -> None:
        """`count` requests to a revision, of which `errors` failed."""
        key, good = (service, revision), count - errors
        was = self.revisions.get(key, RevisionTraffic(revision=revision))
        self.revisions[key] = msgspec.structs.replace(
            was,
            requests=was.requests + count,
            errors=was.errors + errors,
            completions=was.completions + count,
            slo_good=was.slo_good + good,
            started=was.started + good,
            prompt_tokens=was.prompt_tokens + 100 * count,
            generation_tokens=was.generation_tokens + 50 * good,
            ttft_counts=_sum(was.ttft_counts, buckets(ttft, good)),
            tpot_counts=_sum(was.tpot_counts, buckets(tpot, good)),
        )
        self.arrivals[service] = self.arrivals.get(service, 0) + count

    def generation_tokens(self, service: str) -> int:
        return sum(row.generation_tokens for (name, _), row in self.revisions.items() if name == service)

    def report(self, services: Iterable[str]) -> GatewayReport:
        return GatewayReport(
            epoch=self.epoch,
            services=tuple(
                ServiceTraffic(
                    service=name,
                    arrivals=self.arrivals.get(name, 0),
                    held=self.held.get(name, 0),
                    revisions=tuple(row for (service, _), row in self.revisions.items() if service == name),
                    replicas=self.replicas.get(name, ()),
                )
                for name in services
            ),
        )


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one or (0,) * len(other), other, strict=True))


class Stage:
    """Everything a test of the loop needs, and time in steps."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.store, self.backend = MemoryStore(self.clock), FakeBackend(self.clock)
        self.gateway: Gateway | None = None
        self.busy: dict[str, int] = {}  # service → requests that run in its replicas
        self.loop = self.control()

    def clock(self) -> float:
        return self.now

    def control(self) -> ControlLoop:
        """A control plane that has just started."""
        return ControlLoop(self.store, self.backend, SETTINGS, clock=self.clock)

    async def declare(self, name: str = "chat", **fields: Any) -> InferenceService:
        stored = await self.store.put(service_of(name, **fields))
        self.loop.heard(Change(resource=stored))
        return stored

    async def change(self, name: str = "chat", **fields: Any) -> InferenceService:
        """Replace fields of the spec; `model` is the template's, `replicas` fixes the scaling."""
        service = await self.store.get(InferenceService, name)
        if "model" in fields:
            fields["template"] = msgspec.structs.replace(service.spec.template, model=fields.pop("model"))
        if "replicas" in fields:
            fields["scaling"] = fixed(fields.pop("replicas"))
        spec = msgspec.structs.replace(service.spec, **fields)
        stored = await self.store.put(msgspec.structs.replace(service, spec=spec))
        self.loop.heard(Change(resource=stored))
        return stored

    async def run(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass, with a look at each step."""
        for _ in range(round(seconds / step)):
            self.now += step
            await self.report()
            await self.loop.look()

    async def report(self) -> None:
        """What the gateway sends, if there is one: each ready replica with its share of the running requests."""
        if self.gateway is None:
            return
        names = sorted(self.loop.world.services)
        for name in names:
            ready = [each for status in self.loop.world.statuses_of(name) for each in status.ready()]
            running = self.busy.get(name, 0)
            self.gateway.replicas[name] = tuple(
                ReplicaLoad(
                    replica=each.name,
                    revision="v1",
                    reported_seconds_ago=0.1,
                    report=ReplicaReport(
                        epoch="one",
                        phase="ready",
                        num_requests_running=running // len(ready) + (index < running % len(ready)),
                        max_num_seqs=8,
                        generation_tokens=self.gateway.generation_tokens(name) // len(ready),
                    ),
                )
                for index, each in enumerate(ready)
            )
        self.loop.record_report(self.gateway.name, self.gateway.report(names))

    async def service(self, name: str = "chat") -> InferenceService:
        return await self.store.get(InferenceService, name)

    async def status(self, name: str = "chat") -> InferenceServiceStatus:
        return (await self.service(name)).status

    async def replicas(self, phase: ReplicaPhase | None = None) -> dict[str, int]:
        """Replicas by workload, spares and draining ones left out."""
        statuses: list[WorkloadStatus] = await self.backend.list()
        counted = {
            status.name: sum(
                not each.is_spare and each.phase is not ReplicaPhase.DRAINING and phase in (None, each.phase)
                for each in status.replicas
            )
            for status in statuses
        }
        return {name: count for name, count in counted.items() if count}

    async def reasons(self, service: str = "chat") -> list[str]:
        """Reasons of the service's events, by time."""
        events = [each for each in await self.store.list(Event) if each.service == service]
        return [each.reason for each in sorted(events, key=lambda each: each.metadata.resource_version)]

    def weights(self, service: str = "chat") -> dict[str, int]:
        """What gateways are told."""
        (route,) = [each for each in self.loop.routes().services if each.service == service]
        return {each.revision: each.weight for each in route.revisions}

    def endpoints(self, service: str = "chat") -> dict[str, int]:
        (route,) = [each for each in self.loop.routes().services if each.service == service]
        return {each.revision: len(each.endpoints) for each in route.revisions}


@pytest.fixture
def stage() -> Stage:
    return Stage()


PROMOTION = PromotionPolicy(steps=(10, 50, 100), interval_seconds=10.0, min_requests=50, timeout_seconds=60.0)
PROMOTED = RolloutPolicy(promotion=PROMOTION, progress_deadline_seconds=60.0)
