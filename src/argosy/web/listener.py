"""The listening socket and its connections: bound before anything is loaded, closed after the last answer."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from argosy.core.errors import SpecError
from argosy.core.web_spec import WebSpec
from argosy.observe.metrics import Metrics
from argosy.web.http_protocol import GuardedProtocol, GuardedState, openai_rejection
from argosy.web.last_requests import has_newcomers, turn_newcomers_away

_BACKLOG = 2048
_HANDSHAKE_SECONDS = 0.2  # for who has begun to connect when newcomers are turned away
_LOOK_SECONDS = 0.02


def bind(spec: WebSpec, *, port_flag: str = "--port") -> socket.socket:
    """The socket of the spec, bound but not listening, so that a taken port is known at once (F-23).

    port_flag: what the command calls the port. Raises: SpecError saying what to do.
    """
    if spec.uds is not None:
        return _bind_unix(spec)
    try:
        family = socket.getaddrinfo(spec.host, spec.port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as exc:
        raise SpecError(f"host {spec.host!r} is not an address of this machine ({exc.strerror})") from exc
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by every connection: a token must not wait for the ACK of the one before it (Nagle, 40 ms).
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        bound.bind((spec.host, spec.port))
    except OSError as exc:
        bound.close()
        raise SpecError(
            f"cannot listen on {spec.host} port {spec.port} ({exc.strerror}): stop what uses it, "
            f"or choose another with {port_flag} {spec.port + 1}"
        ) from exc
    bound.setblocking(False)
    return bound


def _bind_unix(spec: WebSpec) -> socket.socket:
    """A Unix socket only its owner may use; a stale one of a process that is gone is replaced."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = str(spec.uds)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
        probe.connect(path)
        raise SpecError(f"another process listens on {path}: stop it, or choose another --uds")
    try:
        if spec.uds is not None and spec.uds.is_socket():
            spec.uds.unlink()
        mask = os.umask(0o177)
        try:
            bound.bind(path)
        finally:
            os.umask(mask)
    except OSError as exc:
        bound.close()
        raise SpecError(f"cannot listen on {path} ({exc.strerror}): choose another --uds") from exc
    bound.setblocking(False)
    return bound


class Listener:
    """Accepts connections for one application. rejection: what is answered to who never reaches it, as JSON."""

    def __init__(
        self,
        spec: WebSpec,
        bound: socket.socket,
        metrics: Metrics,
        *,
        rejection: Callable[[int, str], bytes] = openai_rejection,
    ) -> None:
        self._spec = spec
        self._bound = bound
        self._state = GuardedState(spec.limits, metrics, rejection)
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where clients reach it."""
        if self._spec.uds is not None:
            return f"unix:{self._spec.uds}"
        host = f"[{self._spec.host}]" if ":" in self._spec.host else self._spec.host
        return f"http://{host}:{self._bound.getsockname()[1]}"

    async def start(self, app: ASGIApp) -> None:
        """Take connections from now on."""
        config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        config.load()
        loop = asyncio.get_running_loop()
        self._state.default_headers = [(b"server", b"argosy")]
        self._server = await loop.create_server(
            lambda: GuardedProtocol(config, self._state, {}), sock=self._bound, backlog=_BACKLOG
        )

    def begin_to_end(self) -> None:
        """Let every answer from now on be the last one of its connection, and say so; new connections are taken."""
        self._state.is_ending = True
        for connection in self._state.guarded():
            connection.end_after_answer()

    async def end(self, silence_seconds: float) -> None:
        """Take no new connections; return once all have ended, those with no request after so long a silence.

        Who had connected before is answered, whether the connection was accepted yet or not. Cancels: nothing more
        is closed; `stop` does that.
        """
        turn_newcomers_away(self._bound)
        await asyncio.sleep(_HANDSHAKE_SECONDS)
        while has_newcomers(self._bound):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(_LOOK_SECONDS)
        if self._server is not None:
            self._server.close()
        while self._state.connections:
            for connection in self._state.guarded():
                connection.end_if_silent(silence_seconds)
            await asyncio.sleep(_LOOK_SECONDS)

    async def stop(self, seconds: float) -> None:
        """Take no more connections, close idle ones, let the others end within `seconds`, then cut them.

        Cancels: cuts at once.
        """
        if self._server is None:
            self._bound.close()
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = list(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in self._state.tasks:
            task.cancel()
        for connection in list(self._state.connections):
            connection.transport.close()
        if self._spec.uds is not None:
            self._spec.uds.unlink(missing_ok=True)
