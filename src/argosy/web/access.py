"""Who may come in: Host, Origin, key, scope, content type. Pure functions of a request's head and a `Door`.

Deny by default: with a key set, every path but the probes needs one, whether a route exists there or not (D-15).
A browser is a confused deputy: it sends what a page from elsewhere tells it to. So on a loopback bind only our own
Host names are answered (DNS rebinding), a foreign Origin is refused, and bodies must be JSON, or, where a protocol
takes any body, not be asked for by a foreign page (D-17).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import re
import socket
from collections.abc import Iterable

import msgspec

from argosy.core.errors import Forbidden, InvalidRequest, SpecError, Unauthorized
from argosy.core.principal import Principal, Scope
from argosy.core.web_spec import WebSpec
from argosy.observe.metrics import Metrics
from argosy.web.api_keys import ApiKeys, WatchedKeys, plain_keys, read_keys
from argosy.web.paths import Paths

logger = logging.getLogger(__name__)

_EVERYONE = Principal()
_CALLER = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_DECISIVE = frozenset({b"host", b"authorization", b"origin", b"content-type"})
_OTHER_SITES = frozenset({b"cross-site", b"same-site"})

Head = dict[bytes, bytes]


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one server. any_host: do not check Host (a key protects, or the caller gave no list)."""

    keys: ApiKeys
    paths: Paths
    hosts: frozenset[str]
    any_host: bool
    ip_hosts: bool
    origins: frozenset[str]


def door_for(spec: WebSpec, keys: ApiKeys, paths: Paths) -> Door:
    """The rules that follow from a spec.

    With a list of hosts, only those. Else on a loopback bind, or without keys, our own names (and bare addresses,
    which no DNS answer can forge); else any, because a rebinding page has no key.
    """
    own = {"localhost", spec.host.lower(), socket.gethostname().lower()}
    listed = {host.lower() for host in spec.allowed_hosts}
    return Door(
        keys=keys,
        paths=paths,
        hosts=frozenset(listed | own),
        any_host=not listed and bool(keys) and not spec.is_loopback,
        ip_hosts=not listed or not spec.is_loopback,
        origins=frozenset(spec.allowed_origins),
    )


def load_keys(spec: WebSpec, metrics: Metrics) -> ApiKeys:
    """The keys of the file, watched, and those given in the clear. Raises: SpecError."""
    path = spec.api_keys_file
    if path is None:
        return ApiKeys(plain_keys(spec.api_keys))
    if not read_keys(path).keys:
        raise SpecError(
            f"API key file {path} holds no key, so nobody could get in: run `argosy keys create NAME --file {path}`"
        )
    failures = metrics.counter("argosy_api_keys_reload_failures")

    def report(error: SpecError) -> None:
        failures.add()
        logger.warning("API key file changed and is unusable, the keys before stay", extra={"error": error.message})

    return WatchedKeys(path, plain_keys(spec.api_keys), report)


def check_single(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Whether the headers that decide about access stand there once. Raises: InvalidRequest."""
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in seen and name in _DECISIVE:
            raise InvalidRequest(f"header {name.decode()} came twice: send it once")
        seen.add(name)


def check_host(head: Head, door: Door, http_version: str) -> None:
    """Answer only to our own names. Raises: Forbidden; InvalidRequest without a name, which only HTTP/1.0 may omit.

    Source: RFC 9112 §3.2.
    """
    host = head.get(b"host")
    if host is None and http_version != "1.0":
        raise InvalidRequest("the request has no Host header: send one, as HTTP/1.1 asks")
    if door.any_host or host is None:
        return
    name = _host_name(host.decode("latin-1"))
    if name in door.hosts or (door.ip_hosts and _is_address(name)):
        return
    raise Forbidden(
        f"host {name[:100]!r} is not served here: call the server by its own address, "
        "or start it with --allowed-host NAME"
    )


def check_origin(head: Head, door: Door) -> str | None:
    """The web origin to grant access to, if a page from a permitted elsewhere calls. Raises: Forbidden."""
    sent = head.get(b"origin")
    if sent is None:
        return None
    origin = sent.decode("latin-1")
    host = head.get(b"host", b"").decode("latin-1")
    if origin in (f"http://{host}", f"https://{host}"):
        return None
    if origin in door.origins:
        return origin
    raise Forbidden(
        f"pages of origin {origin[:100]!r} may not call this server: start it with --allowed-origin {origin[:100]}"
    )


def authenticate(path: str, head: Head, door: Door) -> Principal:
    """Who is calling. Raises: Unauthorized without a good key, Forbidden if it lacks the scope."""
    if not door.keys or door.paths.is_probe(path):
        return _EVERYONE
    presented = presented_key(head.get(b"authorization", b"").decode("latin-1"))
    if presented is None:
        raise Unauthorized("this server needs an API key: send the header 'Authorization: Bearer KEY'")
    principal = door.keys.principal(presented)
    if principal is None:
        raise Unauthorized("this API key is not known here: check it, or create one with `argosy keys create`")
    scope = door.paths.scope_of(path)
    if not principal.may(scope):
        raise Forbidden(f"key {principal.name!r} lacks the scope {scope.value!r}: use a key that has it")
    return principal


def billed_to(head: Head, principal: Principal, door: Door) -> str:
    """The name that fairness counts a request to: the key's own, or the one a gateway asks for (`x-argosy-caller`).

    Only a key with the scope admin may speak for others, as the gateway's does; nobody else can pass as two callers.
    """
    named = head.get(b"x-argosy-caller")
    if named is None or not door.keys or not principal.may(Scope.ADMIN) or not _CALLER.fullmatch(named):
        return principal.name
    return named.decode("ascii")


def presented_key(authorization: str) -> str | None:
    """The key in an Authorization header: `Bearer KEY`, or `Basic` with the key as password (what browsers send).

    Source: RFC 9110 §11.1 (schemes are case-insensitive), RFC 6750, RFC 7617.
    """
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return value
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(value, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return pair.partition(":")[2] or None
    return None


def check_site(head: Head, granted_origin: str | None) -> None:
    """Refuse what a page of another site made its browser ask for, also where browsers name no Origin (images, GET).

    Following a link is no such thing. Raises: Forbidden. Source: W3C Fetch Metadata, "Resource Isolation Policy".
    """
    is_foreign = head.get(b"sec-fetch-site") in _OTHER_SITES and head.get(b"sec-fetch-mode") != b"navigate"
    if is_foreign and granted_origin is None:
        raise Forbidden("pages of other sites may not call this server: start it with --allowed-origin ORIGIN")


def check_content(method: str, head: Head, *, must_be_json: bool) -> int | None:
    """The declared length of the body, checked; None if it comes in chunks.

    must_be_json: the content types a foreign page can send without asking first are refused (D-17).
    Raises: InvalidRequest.
    """
    length = head.get(b"content-length")
    declared = None if length is None else int(length)
    has_body = bool(declared) or b"transfer-encoding" in head
    if must_be_json and method in _UNSAFE and has_body:
        kind = head.get(b"content-type", b"").split(b";", 1)[0].strip().lower()
        if kind != b"application/json":
            raise InvalidRequest(
                f"Unsupported Media Type: only 'application/json' is read here, got {kind.decode('latin-1')[:64]!r}: "
                "send the header 'Content-Type: application/json'",
                param="content-type",
            )
    return declared if declared is not None or has_body else 0


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
