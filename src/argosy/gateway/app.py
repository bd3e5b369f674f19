"""The wiring of a gateway: services, transport, dispatch, routes, edge. `run.py` gives it a life."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import aclosing

from starlette.routing import Route

from argosy.core.control_spec import GatewaySpec
from argosy.core.errors import ArgosyError
from argosy.core.principal import Scope
from argosy.gateway.accounts import Accounts
from argosy.gateway.control_link import ControlLink
from argosy.gateway.dispatch import Dispatcher
from argosy.gateway.inference import Inference
from argosy.gateway.models import ServiceModels
from argosy.gateway.relay import Relay, RelayParts
from argosy.gateway.replica_polls import ReplicaPolls
from argosy.gateway.reports import Reports
from argosy.gateway.services import Services
from argosy.gateway.shadow import Shadows
from argosy.gateway.transport import Transport
from argosy.observe.metrics import Metrics
from argosy.observe.tracing import open_tracing
from argosy.observe.traffic_cells import write_report
from argosy.web.access import door_for, load_keys
from argosy.web.edge import Edge, EdgeSettings
from argosy.web.lifecycle import Lifecycle, Phase
from argosy.web.operations import Operations
from argosy.web.pages import chat_page
from argosy.web.paths import Paths

logger = logging.getLogger(__name__)

_PATHS = Paths(default_scope=Scope.INFER, pages=frozenset({"/"}), page_prefixes=("/assets/",))
_ABOUT = "All services of a control plane behind one URL, over the OpenAI API."
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0


class Gateway:
    """Everything one gateway does while it runs. Raises: SpecError for unusable keys."""

    def __init__(
        self,
        spec: GatewaySpec,
        transport: Transport,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.lifecycle = Lifecycle("the gateway waits for its first routes from the control plane")
        self._transport = transport
        self._clock = clock
        self.services = Services(self._hurry)
        self.reports = Reports(self.services, clock, spec.report_seconds)
        self.polls = ReplicaPolls(self.services, transport, clock, spec.report_seconds)
        dispatcher = Dispatcher(transport, clock, draw)
        self._shadows = Shadows(dispatcher, clock, draw)
        self._open_relays: set[Relay] = set()
        parts = RelayParts(
            dispatcher=dispatcher,
            shadows=self._shadows,
            accounts=Accounts(metrics, clock),
            clock=clock,
            open_relays=self._open_relays,
        )
        metrics.before_scrape(lambda: write_report(metrics, self.reports.build()))
        inference = Inference(self.services, parts, draw)
        models = ServiceModels(self.services)
        served = [
            *inference.routes(),
            Route("/v1/models", models.list, methods=["GET"]),
            Route("/v1/models/{model:path}", models.retrieve, methods=["GET"]),
        ]
        self.routes = [*served, *chat_page().routes(), *Operations(self.lifecycle, metrics, _ABOUT).routes(served)]
        settings = EdgeSettings(
            door=door_for(spec, load_keys(spec, metrics), _PATHS),
            max_body_bytes=spec.limits.max_body_bytes,
            access_log=spec.access_log,
            tracing=open_tracing(spec.otlp_endpoint, "gateway"),
        )
        self.edge = Edge(self.routes, self.lifecycle, metrics, settings)

    async def run(self, link: ControlLink) -> None:
        """Follow the routes, ask replicas, report, send shadows, until cancelled. Cancels: all of it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_routes(link))
            group.create_task(self.polls.run())
            group.create_task(self.reports.run(link))
            group.create_task(self._shadows.run())

    def abort_all(self, error: ArgosyError) -> None:
        """End every open request now with this error."""
        for relay in [*self._open_relays]:
            relay.stop(error)

    def _hurry(self) -> None:
        self.reports.hurry()

    async def _follow_routes(self, link: ControlLink) -> None:
        """Take each newer table; while the control plane is away, keep the last, and ask again with growing pauses."""
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with aclosing(link.routes()) as tables:
                    async for table in tables:
                        pause_seconds, self.services.stale_since = _FIRST_PAUSE_SECONDS, None
                        if self.services.update(table, self._clock()):
                            self.polls.follow()
                            self._transport.keep_only(self.services.addresses())
                        if self.lifecycle.phase is Phase.STARTING:
                            self.lifecycle.ready()
            except (ArgosyError, OSError) as error:
                logger.warning("control plane is away, the last routes stay", extra={"error": str(error)})
            if self.services.stale_since is None:
                self.services.stale_since = self._clock()
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
