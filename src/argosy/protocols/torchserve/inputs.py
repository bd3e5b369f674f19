"""A request's bytes as what a handler gets: one part per field of a form, else one part named `body`.

Query parameters become parts only where TorchServe makes them so: on the legacy paths and on `/invocations`.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request

from argosy.core.errors import InvalidRequest
from argosy.core.prediction import InputPart
from argosy.protocols.torchserve.forms import multipart, url_encoded

BODY = "body"
# What concerns the connection or the caller's key is not the handler's.
_WITHHELD = ("authorization", "proxy-authorization")


async def read_parts(request: Request, content_type: str, *, with_query: bool = False) -> tuple[InputPart, ...]:
    """What the body holds, and the query where asked for. Raises: InvalidRequest; PayloadTooLarge, as the edge says."""
    parts = parts_of(await read_body(request), content_type)
    if with_query and request.scope["query_string"]:
        parts += tuple(
            InputPart(name=name, content=value.encode("utf-8", "surrogateescape"))
            for name, value in request.query_params.multi_items()
        )
    return parts


async def read_body(request: Request) -> bytes:
    """The whole body; one that came in one piece, as most do, without a detour. Raises: as `read_parts`."""
    if hasattr(request, "_body"):
        return await request.body()
    pieces = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the client closed the connection before the body was complete")
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(pieces + body) if pieces else body
        pieces += body


def parts_of(body: bytes, content_type: str) -> tuple[InputPart, ...]:
    """The inputs in a body of that type. Raises: InvalidRequest."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return multipart(body, content_type)
    if kind == "application/x-www-form-urlencoded":
        return url_encoded(body)
    return (InputPart(name=BODY, content=body, content_type=kind),)


def read_headers(headers: Iterable[tuple[bytes, bytes]], *, with_credentials: bool) -> dict[str, str]:
    """The client's headers by lower-case name; of one that comes twice the last.

    with_credentials: the key it called us with, too.
    """
    read = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    if not with_credentials:
        for name in _WITHHELD:
            read.pop(name, None)
    return read
