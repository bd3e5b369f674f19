"""Asking web servers for bytes: allow-listed, redirects followed by hand, faults retried with growing pauses.

A response body is taken as it is sent (`identity`): a compressed one is refused, so a small answer cannot become a
large one here (D-03). A token goes to the host it is for and to no host that one redirects to.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
import msgspec

from argosy.artifacts.network import PinnedTransport, UrlRules, parse_url
from argosy.core.errors import ArtifactError
from argosy.core.network import NetworkSettings

MAX_REDIRECTS = 3
MAX_JSON_BYTES = 32 * 2**20
MAX_PAUSE_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.5
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECT_STATUS = frozenset({301, 302, 303, 307, 308})

T = TypeVar("T")
_logger = logging.getLogger(__name__)


class TransientFault(Exception):
    """Worth another try. pause_seconds: what the server asked us to wait, if it did."""

    def __init__(self, message: str, pause_seconds: float | None = None) -> None:
        super().__init__(message)
        self.pause_seconds = pause_seconds


class WebClient:
    """An HTTP client for one fetch: its rules, its connections, its patience.

    transport and sleep are the two ways it touches the world; tests give their own.
    """

    def __init__(
        self,
        rules: UrlRules,
        settings: NetworkSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.settings = settings
        self._rules = rules
        self._sleep = sleep
        self._gate = asyncio.Semaphore(settings.num_connections)
        self._client = httpx.AsyncClient(
            transport=transport or PinnedTransport(allow_private=settings.allow_private_addresses),
            timeout=httpx.Timeout(settings.timeout_seconds),
            follow_redirects=False,
            trust_env=False,
            headers={"accept-encoding": "identity", "user-agent": "argosy"},
        )

    async def __aenter__(self) -> WebClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """One GET, redirects followed, the body unread. At most `num_connections` are open at once.

        Raises: TransientFault, ArtifactError by status; Forbidden for a URL off the list; httpx.TransportError.
        """
        async with self._gate:
            target, sent = parse_url(url), dict(headers)
            for _ in range(MAX_REDIRECTS + 1):
                self._rules.check(target)
                request = self._client.build_request("GET", target, headers=sent)
                response = await self._client.send(request, stream=True)
                try:
                    if response.status_code not in _REDIRECT_STATUS:
                        _check_status(response, url)
                        yield response
                        return
                    following = parse_url(response.headers.get("location", ""), target)
                finally:
                    await response.aclose()
                if (following.scheme, following.host, following.port) != (target.scheme, target.host, target.port):
                    sent.pop("authorization", None)
                target = following
            raise ArtifactError(f"{url} redirects more than {MAX_REDIRECTS} times: it is refused")

    async def json(self, url: str, headers: Mapping[str, str]) -> Any:
        """A JSON document, at most 32 MiB of it. Raises: ArtifactError, Forbidden."""

        async def ask() -> Any:
            body = bytearray()
            async with self.get(url, headers) as response:
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > MAX_JSON_BYTES:
                        raise ArtifactError(f"{url} answers more than {MAX_JSON_BYTES} bytes: it is refused")
            try:
                return msgspec.json.decode(bytes(body))
            except msgspec.DecodeError as error:
                raise ArtifactError(f"{url} does not answer JSON ({error}): check the endpoint") from error

        return await self.retried(ask, url)

    async def retried(
        self, attempt: Callable[[], Awaitable[T]], what: str, progress: Callable[[], int] = lambda: 0
    ) -> T:
        """Run `attempt` until it succeeds; give up after some tries in a row without progress.

        progress: a number that grows as bytes arrive. Raises: ArtifactError(retryable) with the last reason.
        """
        tries, before = 0, progress()
        while True:
            try:
                return await attempt()
            except (TransientFault, httpx.TransportError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
                if _is_certificate_fault(error):
                    raise ArtifactError(f"{what}: {reason}; check the clock and the certificates") from error
                tries, before = (0 if progress() > before else tries) + 1, progress()
                if tries >= self.settings.num_attempts:
                    raise ArtifactError(
                        f"{what}: {reason}; gave up after {tries} tries; what has arrived is kept: pull again",
                        retryable=True,
                    ) from error
                pause = _pause_seconds(tries, getattr(error, "pause_seconds", None))
                _logger.info("download interrupted, trying again", extra={"url": what, "reason": reason})
            await self._sleep(pause)


def _pause_seconds(tries: int, asked: float | None) -> float:
    """Doubling pauses with jitter, or what the server asked for, within a minute.

    Source: "full jitter" of the AWS Architecture Blog, Exponential Backoff and Jitter.
    """
    if asked is not None:
        return min(max(asked, 0.0), MAX_PAUSE_SECONDS)
    ceiling = min(FIRST_PAUSE_SECONDS * 2 ** (tries - 1), MAX_PAUSE_SECONDS)
    return random.uniform(ceiling / 2, ceiling)


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206):
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise ArtifactError(f"{url} answers {encoding}-compressed, which was not asked for: it is refused")
        return
    if status in _RETRIED_STATUS:
        asked = response.headers.get("retry-after", "")
        raise TransientFault(f"the server answers {status}", float(asked) if asked.isdecimal() else None)
    remedies = {
        401: "it needs a token: set HF_TOKEN",
        403: "the token may not read it: accept the model's terms on its page, then set HF_TOKEN",
        404: "there is no such repository, revision or file: check the reference",
        416: "the file changed while it was pulled: pull again",
    }
    raise ArtifactError(f"{url} answers {status}: {remedies.get(status, 'check the reference and the endpoint')}")


def _is_certificate_fault(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
