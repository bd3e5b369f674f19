"""The life of one gateway: bind, follow the control plane, drain, stop. The same ends as a replica's (`server/run.py`).

start   the socket listens at once; probes say "starting" until the first route table came
drain   SIGTERM or ^C: /readyz is 503, new requests get 503 and `Connection: close`, open ones run to their end
abort   a second signal, or the end of the grace period: what is open gets a last error
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
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
from argosy.web.process import allow_open_files, calm_collector, first_of, start_logging

logger = logging.getLogger(__name__)

EXIT_DONE, EXIT_FAILED = 0, 1
_LAST_WORDS_SECONDS = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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
        self._stop = asyncio.Event()
        self._abort = asyncio.Event()

    async def run(self, link: ControlLink) -> int:
        """Serve until a signal. Cancels: everything is closed."""
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            loop.add_signal_handler(each, self._signalled)
        self._metrics.gauge("argosy_build_info", argosy.__version__).set(1)
        await self._listener.start(self._gateway.edge)
        following = asyncio.create_task(self._gateway.run(link))
        calm_collector()
        _say(f"gateway {self._spec.name}: {self._listener.url}/v1")
        logger.info("listening", extra={"url": self._listener.url})
        try:
            await first_of(self._stop.wait(), _ended(following))
            if following.done():
                following.result()
            return await self._drain()
        finally:
            following.cancel()
            await asyncio.wait([following])
            await self._listener.stop(_LAST_WORDS_SECONDS)
            await self._transport.close()

    async def _drain(self) -> int:
        """Let what runs end; abort it after the grace period or at a second signal."""
        lifecycle = self._gateway.lifecycle
        lifecycle.drain()
        logger.info("draining", extra={"in_flight": lifecycle.in_flight})
        _say(f"draining: {lifecycle.in_flight} requests open (a second signal aborts them)")
        try:
            async with asyncio.timeout(self._spec.shutdown_grace_seconds):
                await first_of(lifecycle.wait_idle(), self._abort.wait())
        except TimeoutError:
            logger.warning("grace period over", extra={"in_flight": lifecycle.in_flight})
        if lifecycle.in_flight:
            self._gateway.abort_all(
                Unavailable("the gateway is stopping: send the request to another", retry_after_seconds=1.0)
            )
            try:
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await lifecycle.wait_idle()
            except TimeoutError:
                logger.warning("requests cut off", extra={"in_flight": lifecycle.in_flight})
        return EXIT_FAILED if self._abort.is_set() else EXIT_DONE

    def _signalled(self) -> None:
        (self._abort if self._stop.is_set() else self._stop).set()


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


def _say(line: str) -> None:
    """Progress, for whoever waits at the terminal."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
