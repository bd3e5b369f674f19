"""GET /metrics of the control plane: its own metrics, those of every gateway, and those of every ready replica, as one.

Gateways are not asked: what they report several times a second holds it all. Replicas are asked at once, each with a
limit of time and bytes; one that does not answer, or whose answer cannot be read, is left out and shown as
`argosy_scrape_up 0`, so a scrape never fails for one replica. Reading and joining run in a thread beside the loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import httpx
import msgspec

from argosy.control.world import World
from argosy.core.workload import REVISION_LABEL, ReplicaPhase
from argosy.observe.exposition import Scrape, Source, Unreadable, join, read
from argosy.observe.metrics import Metrics
from argosy.observe.traffic_cells import report_metrics

logger = logging.getLogger(__name__)

REPLICA_TIMEOUT_SECONDS = 2.0
TOTAL_TIMEOUT_SECONDS = 8.0
MAX_REPLICA_BYTES = 2 * 2**20
_AT_ONCE = 32


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    address: str
    labels: Mapping[str, str]


class _Failed(Exception):
    """A source is left out of this scrape; the message says why."""


class MergedMetrics:
    """One scrape of everything. replica_key: what replicas ask for. transport: for tests."""

    def __init__(
        self,
        metrics: Metrics,
        world: World,
        clock: Callable[[], float],
        *,
        replica_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._metrics = metrics
        self._world = world
        self._clock = clock
        self._headers = {"accept-encoding": "identity"}
        if replica_key is not None:
            self._headers["authorization"] = f"Bearer {replica_key}"
        self._transport = transport
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._failing: frozenset[str] = frozenset()

    async def expose(self) -> bytes:
        """Everything, in Prometheus' text format. Cancels: requests to replicas are closed."""
        began = time.monotonic()
        targets = self._targets()
        reports = self._world.ledger.reports(self._clock())
        texts = await self._fetch_all(targets)
        gateways = [
            Scrape(text=report_metrics(report).decode(), labels={"gateway": name}) for name, report in reports.items()
        ]
        replicas = [
            text if isinstance(text, _Failed) else Scrape(text=text, labels=target.labels)
            for target, text in zip(targets, texts, strict=True)
        ]
        sources = await asyncio.to_thread(_read_all, [*gateways, *replicas])
        self._metrics.clear("argosy_scrape_up")
        for name, source in zip(reports, sources, strict=False):
            self._note("gateway", {"gateway": name}, source)
        for target, source in zip(targets, sources[len(gateways) :], strict=True):
            self._note("replica", target.labels, source)
        self._tell_changes(targets, sources[len(gateways) :])
        self._metrics.gauge("argosy_scrape_seconds").set(time.monotonic() - began)
        own = read(Scrape(text=self._metrics.expose().decode(), labels={}))
        text, dropped = await asyncio.to_thread(join, [own, *(each for each in sources if isinstance(each, Source))])
        self._metrics.counter("argosy_scrape_dropped_samples").add(dropped)
        return text.encode()

    def _targets(self) -> list[_Target]:
        return [
            _Target(
                address=replica.address,
                labels={
                    "service": service,
                    "revision": status.labels.get(REVISION_LABEL, ""),
                    "replica": replica.name,
                },
            )
            for service, statuses in self._world.statuses.items()
            for status in statuses
            for replica in status.replicas
            if replica.phase is ReplicaPhase.READY and replica.address is not None
        ]

    async def _fetch_all(self, targets: list[_Target]) -> list[str | _Failed]:
        """Of each target its text, or why there is none. Not one of them can hold up or break the scrape."""
        deadline = asyncio.get_running_loop().time() + TOTAL_TIMEOUT_SECONDS
        async with (
            httpx.AsyncClient(
                headers=self._headers, transport=self._transport, trust_env=False, timeout=REPLICA_TIMEOUT_SECONDS
            ) as client,
            asyncio.TaskGroup() as tasks,
        ):
            asked = [tasks.create_task(self._fetch(client, target, deadline)) for target in targets]
        return [task.result() for task in asked]

    async def _fetch(self, client: httpx.AsyncClient, target: _Target, deadline: float) -> str | _Failed:
        try:
            async with asyncio.timeout_at(deadline), self._turn, asyncio.timeout(REPLICA_TIMEOUT_SECONDS):
                return await _text_of(client, f"http://{target.address}/metrics")
        except TimeoutError:
            return _Failed(f"no answer within {REPLICA_TIMEOUT_SECONDS:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeDecodeError, _Failed) as error:
            return _Failed(str(error) or type(error).__name__)

    def _note(self, kind: str, labels: Mapping[str, str], source: Source | _Failed) -> None:
        values = (labels.get(name, "") for name in ("service", "revision", "replica", "gateway"))
        self._metrics.gauge("argosy_scrape_up", kind, *values).set(isinstance(source, Source))

    def _tell_changes(self, targets: list[_Target], sources: list[Source | _Failed]) -> None:
        """Log each replica that begins to fail, once: a scrape comes every few seconds."""
        failing = {
            target.labels["replica"]: str(source)
            for target, source in zip(targets, sources, strict=True)
            if isinstance(source, _Failed)
        }
        for replica in failing.keys() - self._failing:
            logger.warning("metrics of a replica are missing", extra={"replica": replica, "error": failing[replica]})
        self._failing = frozenset(failing)


async def _text_of(client: httpx.AsyncClient, url: str) -> str:
    """Raises: httpx.HTTPError, UnicodeDecodeError, _Failed."""
    async with client.stream("GET", url) as response:
        if response.status_code != 200 or "content-encoding" in response.headers:
            raise _Failed(f"it answers {response.status_code}, or packed, though plain text was asked for")
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_REPLICA_BYTES:
                raise _Failed(f"its metrics are larger than {MAX_REPLICA_BYTES} bytes")
    return body.decode()


def _read_all(scrapes: list[Scrape | _Failed]) -> list[Source | _Failed]:
    found: list[Source | _Failed] = []
    for scrape in scrapes:
        try:
            found.append(scrape if isinstance(scrape, _Failed) else read(scrape))
        except Unreadable as error:
            found.append(_Failed(str(error)))
    return found
