"""The life of one gateway: bind, follow the control plane, drain, stop. The same ends as a replica's (`server/run.py`).

start   the socket listens at once; probes say "starting" until the first route table came
drain   SIGTERM or ^C: /readyz is 503, new requests get 503 and `Connection: close`, open ones run to their end
abort   a second signal, or the end of the grace period: what is open gets a last error
"""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import uvloop

import argosy
from argosy.core.control_spec import GatewaySpec
from argosy.core.errors import SpecError, Unavailable
from argosy.core.web_spec import check_web_spec
from argosy.gateway.app import Gateway
from argosy.gateway.control_link import ControlLink
from argosy.gateway.upstream import ReplicaConnections, UpstreamSettings
from argosy.observe.metrics import Metrics
from argosy.web.listener import Listener, bind
from argosy.web.process import allow_open_files, calm_collector, ended, first_of, start_logging
from argosy.web.stopping import LAST_WORDS_SECONDS, Stopping, say

logger = logging.getLogger(__name__)


def serve_gateway(spec: GatewaySpec, link: ControlLink) -> int:
    """Serve until told to stop; the process exit code. Raises: SpecError at the start."""
    check_web_spec(spec)
    start_logging(spec)
    allow_open_files()
    bound = bind(spec)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_Life(spec, bound).run(link))
    finally:
        bound.close()


def upstream_settings(spec: GatewaySpec) -> UpstreamSettings:
    """How replicas are asked: with the key they know, which no client ever sees (D-19). Raises: SpecError."""
    if spec.replica_key_file is None:
        return UpstreamSettings()
    return UpstreamSettings(headers=((b"authorization", b"Bearer " + _key_in(spec.replica_key_file)),))


def _key_in(path: Path) -> bytes:
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(f"the replica key file {path} cannot be read: {exc}") from exc
    if not key or not key.isprintable():
        raise SpecError(f"the replica key file {path} holds no key: write one line with the key into it")
    return key.encode()


class _Life:
    """One run of a gateway."""

    def __init__(self, spec: GatewaySpec, bound: socket.socket) -> None:
        self._spec = spec
        self._metrics = Metrics()
        self._transport = ReplicaConnections(upstream_settings(spec))
        self._gateway = Gateway(spec, self._transport, self._metrics)
        self._listener = Listener(spec, bound, self._metrics)
        self._stopping = Stopping()

    async def run(self, link: ControlLink) -> int:
        """Serve until a signal. Cancels: everything is closed."""
        self._stopping.listen()
        self._metrics.gauge("argosy_build_info", argosy.__version__).set(1)
        await self._listener.start(self._gateway.edge)
        following = asyncio.create_task(self._gateway.run(link))
        calm_collector()
        say(f"gateway {self._spec.name}: {self._listener.url}/v1")
        logger.info("listening", extra={"url": self._listener.url})
        try:
            await first_of(self._stopping.stop.wait(), ended(following))
            if following.done():
                following.result()
            lifecycle = self._gateway.lifecycle
            return await self._stopping.drain(lifecycle, self._spec.shutdown_grace_seconds, self._cut_off)
        finally:
            following.cancel()
            await asyncio.wait([following])
            await self._listener.stop(LAST_WORDS_SECONDS)
            await self._transport.close()

    def _cut_off(self) -> None:
        stopping = "the gateway is stopping: send the request to another"
        self._gateway.abort_all(Unavailable(stopping, retry_after_seconds=1.0))
