"""Tells the control plane how the services fare: on a beat, and at once when a first request waits for a replica.

Counts only grow, so a report that is lost costs nothing: the next one holds it all. While the control plane is away
requests go on; reports are tried again with growing pauses.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from argosy.core.errors import ArgosyError
from argosy.core.load_report import GatewayReport
from argosy.gateway.control_link import ControlLink
from argosy.gateway.services import Services

logger = logging.getLogger(__name__)

REPORT_TIMEOUT_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 2.0


class Reports:
    """The beat of one gateway. epoch: one run of this process."""

    def __init__(self, services: Services, clock: Callable[[], float], interval_seconds: float) -> None:
        self.epoch = secrets.token_hex(8)
        self._services = services
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Report now: somebody waits for a replica."""
        self._hurry.set()

    def build(self) -> GatewayReport:
        """Everything, now."""
        now, table, stale_since = self._clock(), self._services.table, self._services.stale_since
        return GatewayReport(
            epoch=self.epoch,
            routes_epoch=table.epoch,
            routes_version=table.version,
            routes_stale_seconds=0.0 if stale_since is None else max(0.0, now - stale_since),
            services=tuple(service.report(now) for service in self._services),
        )

    async def run(self, link: ControlLink) -> None:
        """Until cancelled. Cancels: reports no more."""
        pause_seconds, is_heard = self._interval_seconds, True
        while True:
            try:
                async with asyncio.timeout(pause_seconds):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            self._services.tick(self._clock())
            try:
                async with asyncio.timeout(REPORT_TIMEOUT_SECONDS):
                    await link.report(self.build())
            except (ArgosyError, TimeoutError, OSError) as error:
                if is_heard:
                    logger.warning("control plane does not take reports", extra={"error": str(error)})
                is_heard = False
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            else:
                is_heard, pause_seconds = True, self._interval_seconds
