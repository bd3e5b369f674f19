"""Which URLs may be asked, and of which machine (D-01, D-02).

A URL passes three gates before a byte is sent: its scheme and host stand on an allow-list that a person wrote; it
carries no user, no odd port syntax, no fragment; and every address its host resolves to is a public one. The
address that was checked is the one connected to (`PinnedTransport`), so a second DNS answer changes nothing, and
every redirect starts again at the first gate.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

import httpx
import msgspec

from argosy.core.errors import ArtifactError, Forbidden

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
# Source: RFC 6052, the well-known prefix whose last 32 bits are an IPv4 address.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class UrlRules(msgspec.Struct, frozen=True, kw_only=True):
    """Which URLs may be asked.

    prefixes: `scheme://host[:port]/path` beginnings that are allowed. host_suffixes: domains allowed over https
    with all their subdomains (a hub's content servers).
    """

    prefixes: tuple[str, ...] = ()
    host_suffixes: tuple[str, ...] = ()

    def check(self, url: httpx.URL) -> None:
        """Return if the URL may be asked. Raises: Forbidden saying what to allow."""
        if url.userinfo or url.fragment or not url.host or "\\" in str(url):
            raise Forbidden(f"URL {_shown(url)} has a user, a fragment or no host: write https://HOST/PATH")
        if any(_has_prefix(url, parse_url(prefix)) for prefix in self.prefixes):
            return
        if url.scheme == "https" and url.port is None:
            host = url.host.lower().rstrip(".")
            if any(host == suffix or host.endswith(f".{suffix}") for suffix in self.host_suffixes):
                return
        raise Forbidden(
            f"URL {_shown(url)} is not on the allow-list: if you trust it, "
            f"pass --allow-source {url.scheme}://{url.netloc.decode('ascii', 'replace')}/"
        )


def parse_url(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """A URL, or a reference relative to `base`. Raises: Forbidden if it is none (`http://0177.0.0.1/`)."""
    try:
        return httpx.URL(text) if base is None else base.join(text)
    except httpx.InvalidURL as error:
        raise Forbidden(f"{text[:200]!r} is not a URL ({error}): write https://HOST/PATH") from error


def _has_prefix(url: httpx.URL, allowed: httpx.URL) -> bool:
    """Same scheme, host and port, and a path below the allowed one, compared component by component."""
    if (url.scheme, url.host, url.port) != (allowed.scheme, allowed.host, allowed.port):
        return False
    if ".." in url.path.split("/"):
        return False
    path = allowed.path if allowed.path.endswith("/") else f"{allowed.path}/"
    return f"{url.path}/".startswith(path)


def _shown(url: httpx.URL) -> str:
    return str(url.copy_with(username=None, password=None, query=None))[:200]


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """Every address of `host`, from the system's resolver. Raises: OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(row[4][0]) for row in found]


def is_public(address: IpAddress) -> bool:
    """Whether the address is on the public internet, looking through the ways IPv6 has of wrapping IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(wrapped)
    return address.is_global and not address.is_multicast


class PinnedTransport(httpx.AsyncBaseTransport):
    """Connects to the address it checked, under the name that was asked for (Host header, TLS name).

    One pool per host: connections are never shared between names that happen to have one address.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        resolver: Resolver = system_resolver,
        connect: Callable[[], httpx.AsyncBaseTransport] = httpx.AsyncHTTPTransport,
    ) -> None:
        self._allow_private = allow_private
        self._resolver = resolver
        self._connect = connect
        self._pools: dict[tuple[str, str, int | None], httpx.AsyncBaseTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Resolve, check, pin, send. Raises: Forbidden for a private address; httpx.TransportError."""
        url = request.url
        address = await self._checked_address(url)
        pool = self._pools.setdefault((url.scheme, url.host, url.port), self._connect())
        pinned = httpx.Request(
            request.method,
            url.copy_with(host=address),
            headers=request.headers,  # holds Host already: httpx writes it from the original URL
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": url.host},
        )
        return await pool.handle_async_request(pinned)

    async def _checked_address(self, url: httpx.URL) -> str:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = [str(ipaddress.ip_address(url.host))]
        except ValueError:
            try:
                found = list(await self._resolver(url.host, port))
            except OSError as error:
                raise httpx.ConnectError(f"the name {url.host} cannot be resolved ({error.strerror})") from error
        for address in found:
            if not self._allow_private and not is_public(ipaddress.ip_address(address.partition("%")[0])):
                raise Forbidden(
                    f"{url.host} leads to {address}, which is not a public address: models are not fetched from "
                    "inside this network unless --allow-private-addresses is given"
                )
        if not found:
            raise httpx.ConnectError(f"the name {url.host} has no address")
        return found[0]

    async def aclose(self) -> None:
        """Close every pool."""
        for pool in self._pools.values():
            await pool.aclose()


def require_https(endpoint: str, what: str) -> str:
    """An endpoint without its last slash. Raises: ArtifactError if it is no http(s) URL."""
    url = parse_url(endpoint)
    if url.scheme not in ("https", "http") or not url.host or url.userinfo:
        raise ArtifactError(f"{what} {endpoint!r} is not a URL: write https://HOST")
    return endpoint.rstrip("/")
