"""A page for browsers: the files of a directory and where it stands, under a policy that allows nothing foreign.

Files are read once, at start, into a table of names; a request can only name an entry of that table, so there is no
path to traverse and no link to follow (D-21).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """One file, ready to send."""

    content: bytes
    content_type: str
    etag: str


def chat_page() -> Page:
    """The page to talk to whatever a server serves under /v1: a replica's and a gateway's alike."""
    return Page(resources.files("argosy.web") / "chat_page")


def translate_page() -> Page:
    """The page to translate with whatever model a server has for it, at `/translate`, in the chat page's style."""
    pages = resources.files("argosy.web")
    return Page(
        pages / "translate_page",
        at="/translate",
        borrowed={name: pages / "chat_page" / name for name in ("style.css", "icon.svg")},
    )


class Page:
    """The files of one directory as routes. borrowed: files of another page under names of this one."""

    def __init__(self, directory: Traversable, *, at: str = "", borrowed: Mapping[str, Traversable] = {}) -> None:
        self._at = at
        self._assets = dict(_read(directory, "")) if directory.is_dir() else {}
        self._assets |= {name: _asset(file) for name, file in borrowed.items()}

    def routes(self) -> list[Route]:
        """`/` and `/assets/{name}` (or, at "/x", `/x` and `/x/assets/{name}`); none if there is no page."""
        if "index.html" not in self._assets:
            return []
        return [Route(self._at or "/", self.index), Route(f"{self._at}/assets/{{name:path}}", self.asset)]

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return self._send(request, "index.html")

    async def asset(self, request: Request) -> Response:
        """A file beside the page. Raises: HTTPException 404."""
        return self._send(request, request.path_params["name"])

    def _send(self, request: Request, name: str) -> Response:
        asset = self._assets.get(name)
        if asset is None:
            raise HTTPException(404, "this page has no such file")
        headers = {
            "content-type": asset.content_type,
            "content-security-policy": _POLICY,
            "cache-control": "no-cache",
            "etag": asset.etag,
        }
        if request.headers.get("if-none-match") == asset.etag:
            return Response(status_code=304, headers=headers)
        return Response(asset.content, headers=headers)


def _read(directory: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found: list[tuple[str, Asset]] = []
    for entry in directory.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            found.extend(_read(entry, name + "/"))
        elif _suffix(entry) in _CONTENT_TYPES:
            found.append((name, _asset(entry)))
    return found


def _asset(file: Traversable) -> Asset:
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    return Asset(content=content, content_type=_CONTENT_TYPES[_suffix(file)], etag=etag)


def _suffix(file: Traversable) -> str:
    return "." + file.name.rpartition(".")[2]
