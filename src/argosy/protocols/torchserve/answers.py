"""JSON as TorchServe prints it: two spaces of indent and a line end."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

_encode = msgspec.json.Encoder().encode

# Every reply of TorchServe's says that nobody may keep it. Source: NettyUtils.sendHttpResponse.
REPLY_HEADERS = (
    (b"pragma", b"no-cache"),
    (b"cache-control", b"no-cache; no-store, must-revalidate, private"),
    (b"expires", b"Thu, 01 Jan 1970 00:00:00 UTC"),
)


class StatusBody(msgspec.Struct, frozen=True):
    """What most management calls answer."""

    status: str


def encode(value: Any) -> bytes:
    """The value as indented JSON."""
    return msgspec.json.format(_encode(value), indent=2) + b"\n"


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of indented JSON."""
    return Response(encode(value), status, headers=headers, media_type="application/json")


def status_answer(text: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`{"status": text}`."""
    return json_answer(StatusBody(text), status, headers)
