"""A model in this process, spoken to as if it were a server: the same routes and the same errors, without a socket.

`open_offline` gives an `httpx.AsyncClient` whose transport calls the routes of `protocols` directly. So `argosy infer`
and `argosy chat --local` know one way to ask, and a row of a batch means exactly what it means over the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message

from argosy.core.engine import EngineSettings
from argosy.core.errors import ArgosyError, EngineError
from argosy.core.serve_spec import ServeSpec
from argosy.core.web_spec import LimitsSpec
from argosy.protocols.openai import routes
from argosy.server.composition import open_served_model
from argosy.server.phases import StartPhases
from argosy.serving.registry import ModelRegistry
from argosy.web.errors import error_response

_BUFFERED_MESSAGES = 16
_A_WEEK_SECONDS = 7 * 86_400.0  # Offline, a row may wait for its turn as long as the file is.


@asynccontextmanager
async def open_offline(
    model: str, engine: str | None, say: Callable[[str], None], *, max_num_seqs: int | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `model`, loaded here; `say` hears what is slow about the start.

    Cancels: running requests are aborted and the engine is closed. Raises: as `open_served_model`.
    """
    spec = ServeSpec(
        model=model,
        engine=engine,
        engine_settings=EngineSettings(max_num_seqs=max_num_seqs),
        limits=LimitsSpec(max_queue_seconds=_A_WEEK_SECONDS, max_waiting_tokens=2**40),
    )
    phases = StartPhases(say)
    async with asyncio.TaskGroup() as group:
        heartbeat = group.create_task(phases.heartbeat())
        async with open_served_model(spec, phases=phases) as served:
            heartbeat.cancel()
            registry = ModelRegistry()
            registry.add(served)
            app = _app(registry)
            async with httpx.AsyncClient(
                transport=InProcess(app, group), base_url="http://offline", timeout=_A_WEEK_SECONDS
            ) as client:
                yield client


def _app(registry: ModelRegistry) -> ASGIApp:
    handlers: dict[Any, Any] = dict.fromkeys((ArgosyError, HTTPException), _handle)
    return Starlette(routes=routes(registry), exception_handlers=handlers)


def _handle(request: Any, error: Exception) -> Any:
    return error_response(error, request)


class InProcess(httpx.AsyncBaseTransport):
    """Calls an ASGI app, and streams what it sends. One task of `group` per request."""

    def __init__(self, app: ASGIApp, group: asyncio.TaskGroup) -> None:
        self._app = app
        self._group = group

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; returns with the head of its response.

        Cancels: closing the response tells the app that its client left. Raises: EngineError if the app failed.
        """
        call = _Call(self._app, request, await request.aread())
        self._group.create_task(call.run())
        head = await call.sent.get()
        if isinstance(head, Exception):
            raise EngineError(f"the request failed: {type(head).__name__}: {head}") from head
        return httpx.Response(head["status"], headers=head["headers"], stream=_Body(call))


class _Call:
    """One request under way: the app's messages wait in `sent`, at most a few."""

    def __init__(self, app: ASGIApp, request: httpx.Request, body: bytes) -> None:
        self.sent: asyncio.Queue[Message | Exception] = asyncio.Queue(_BUFFERED_MESSAGES)
        self.has_left = asyncio.Event()
        self._app = app
        self._inbox: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.url.path,
            "raw_path": request.url.raw_path,
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": ("offline", 80),
            "client": None,
        }

    async def run(self) -> None:
        """The app, to its end. Cancels: the app is cancelled."""
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001  # boundary: carried to whoever reads the response
            await self._send(error)

    async def _receive(self) -> Message:
        if self._inbox:
            return self._inbox.pop()
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message | Exception) -> None:
        if not self.has_left.is_set():
            await self.sent.put(message)


class _Body(httpx.AsyncByteStream):
    def __init__(self, call: _Call) -> None:
        self._call = call

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        while True:
            message = await self._call.sent.get()
            if isinstance(message, Exception):
                raise EngineError(f"the answer broke off: {type(message).__name__}: {message}") from message
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def aclose(self) -> None:
        """Tell the app its client left, and make room for what it still wants to say."""
        self._call.has_left.set()
        while not self._call.sent.empty():
            self._call.sent.get_nowait()
