"""A client of a running server: where it is, which key to show it, and its answers as a stream of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, cast

import httpx
import msgspec

from argosy.core.environment import read_environment
from argosy.core.errors import (
    ArgosyError,
    ArtifactError,
    DeadlineExceeded,
    EngineError,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    Unauthorized,
)

_JSON = {"Content-Type": "application/json"}
_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 120.0  # Servers send a keep-alive every 15 s; two minutes of nothing is a dead connection.


@asynccontextmanager
async def open_client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server at `url` (with or without /v1), with the key of ARGOSY_API_KEY if there is one.

    Raises: InvalidRequest if `url` is none.
    """
    base = url.rstrip("/").removesuffix("/v1")
    if not base.startswith(("http://", "https://")):
        raise InvalidRequest(f"{url!r} is not a server's address: write it as http://127.0.0.1:8000")
    key = read_environment().api_key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=timeout, limits=limits) as client:
        yield client


@contextmanager
def reaching(client: httpx.AsyncClient) -> Iterator[None]:
    """Tell trouble on the way to the server in our own words. Raises: ArtifactError, DeadlineExceeded."""
    base = str(client.base_url).rstrip("/")
    try:
        yield
    except httpx.ConnectError as error:
        raise ArtifactError(f"no server answers at {base}: start one with `argosy serve`", retryable=True) from error
    except httpx.TimeoutException as error:
        raise DeadlineExceeded(f"the server at {base} says nothing: look at its log") from error
    except httpx.TransportError as error:
        raise ArtifactError(f"the connection to {base} broke: {error}; try again", retryable=True) from error


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> httpx.Response:
    """One request with a JSON body, and its whole response. Raises: ArtifactError, DeadlineExceeded."""
    with reaching(client):
        return await client.post(path, content=msgspec.json.encode(body), headers=_JSON)


async def first_model(client: httpx.AsyncClient) -> str:
    """The name of the first model the server lists. Raises: ArgosyError as the server said; ModelNotFound if none."""
    with reaching(client):
        response = await client.get("/v1/models")
    if response.status_code != httpx.codes.OK:
        raise server_error(response.status_code, response.content)
    models = msgspec.json.decode(response.content)["data"]
    if not models:
        raise ModelNotFound("the server serves no model: give it one with `argosy serve MODEL`")
    return str(models[0]["id"])


async def stream_events(client: httpx.AsyncClient, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """The chunks of one chat completion.

    Cancels: the request ends on the server, too. Raises: ArgosyError as the server said; EngineError if it broke off.
    """
    content = msgspec.json.encode({**body, "stream": True, "stream_options": {"include_usage": True}})
    with reaching(client):
        async with client.stream("POST", "/v1/chat/completions", content=content, headers=_JSON) as response:
            if response.status_code != httpx.codes.OK:
                raise server_error(response.status_code, await response.aread())
            async with aclosing(cast("AsyncGenerator[str]", response.aiter_lines())) as lines:
                async for line in lines:
                    if line == "data: [DONE]":
                        return
                    if line.startswith("data: "):
                        yield _chunk(line[6:])
    raise EngineError("the answer broke off: send the message again")


def _chunk(text: str) -> dict[str, Any]:
    chunk = msgspec.json.decode(text, type=dict[str, Any])
    if "error" in chunk:
        raise EngineError(str(chunk["error"].get("message", chunk["error"])))
    return chunk


def server_error(status: int, body: bytes) -> ArgosyError:
    """What the server answered, as one of our errors: the exit code follows from it."""
    try:
        decoded = msgspec.json.decode(body)
        message = str(decoded.get("message") or decoded["error"]["message"])
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        message = f"the server answered {status}: {body[:200].decode(errors='replace')}"
    if status == Unauthorized.status:
        return Unauthorized(f"{message} (put the key into the environment variable ARGOSY_API_KEY)")
    if status == Forbidden.status:
        return Forbidden(message)
    if status == ModelNotFound.status:
        return ModelNotFound(message)
    if status == Overloaded.status:
        return Overloaded(message, retry_after_seconds=1.0)
    if status == DeadlineExceeded.status:
        return DeadlineExceeded(message)
    return InvalidRequest(message) if status < 500 else EngineError(message)
