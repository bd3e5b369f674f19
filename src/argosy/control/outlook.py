"""What people ask of the control plane: the rows of `argosy top`, the list of replicas, and `argosy why`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import aclosing

from argosy.control.explain import Evidence, failing_replica, why
from argosy.control.settings import ControlSettings
from argosy.control.views import replica_views, service_load, with_use
from argosy.control.world import World
from argosy.core.errors import ArgosyError
from argosy.core.inference_service import InferenceService
from argosy.core.interfaces import Backend, DeviceReports, Store, UsageReports
from argosy.core.resources import DeviceStatus
from argosy.core.service_views import ReplicaView, Top, Why
from argosy.core.workload import ReplicaUse

_TAIL_LINES = 20
_TAIL_SECONDS = 2.0


class Outlook:
    """Answers from what the loop saw last; only devices, logs and unknown names are asked for anew."""

    def __init__(
        self, world: World, store: Store, backend: Backend, settings: ControlSettings, clock: Callable[[], float]
    ) -> None:
        self._world, self._store, self._backend = world, store, backend
        self._settings, self._clock = settings, clock

    def replicas(self, service: str | None = None) -> tuple[ReplicaView, ...]:
        """Every replica of one service, or of all."""
        world, now = self._world, self._clock()
        names = sorted(world.statuses) if service is None else [service]
        return tuple(
            view
            for name in names
            for view in replica_views(
                name,
                world.statuses_of(name),
                world.ledger.gauges(name, now),
                lambda replica: world.ledger.token_rates.rate(replica, now),
            )
        )

    async def top(self) -> Top:
        """Load of services, replicas and devices. Raises: BackendError."""
        world, now = self._world, self._clock()
        devices: tuple[DeviceStatus, ...] = ()
        if isinstance(self._backend, DeviceReports):
            async with asyncio.timeout(self._settings.call_seconds):
                devices = tuple(await self._backend.devices())
        use: Mapping[str, ReplicaUse] = {}
        if isinstance(self._backend, UsageReports):
            async with asyncio.timeout(self._settings.call_seconds):
                use = await self._backend.usage()
        is_stale = world.ledger.is_stale(now)
        return Top(
            at=now,
            services=tuple(
                service_load(service, world.ledger.gauges(name, now), *world.ledger.recent(name, now))
                for name, service in sorted(world.services.items())
            ),
            replicas=tuple(with_use(view, use.get(view.status.name)) for view in self.replicas()),
            devices=devices,
            gateway_message="no gateway reports: start one with `argosy gateway`" if is_stale else "",
        )

    async def why(self, name: str) -> Why:
        """Why a service is as it is. Raises: NotFound."""
        world, now = self._world, self._clock()
        service = world.services.get(name) or await self._store.get(InferenceService, name)
        statuses, memory = world.statuses_of(name), world.memories.get(name)
        return why(
            Evidence(
                service=service,
                statuses=statuses,
                decision=memory.decision if memory is not None else None,
                verdict=memory.verdict if memory is not None else None,
                gauges=world.ledger.gauges(name, now),
                is_stale=world.ledger.is_stale(now),
                trouble=world.trouble,
                log_tail=await self._log_tail(failing_replica(statuses)),
                now=now,
            )
        )

    async def _log_tail(self, place: tuple[str, str] | None) -> tuple[str, ...]:
        """The last lines of a replica's log; why they cannot be read, if so."""
        if place is None:
            return ()
        lines: deque[str] = deque(maxlen=_TAIL_LINES)
        try:
            async with asyncio.timeout(_TAIL_SECONDS), aclosing(self._backend.logs(*place, follow=False)) as log:
                async for line in log:
                    lines.append(line)
        except (ArgosyError, TimeoutError, OSError) as exc:
            lines.append(f"(the log cannot be read: {str(exc) or type(exc).__name__})")
        return tuple(lines)
