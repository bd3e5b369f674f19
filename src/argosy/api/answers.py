"""How the API says what it has to say: one value, in JSON."""

from __future__ import annotations

import msgspec
from starlette.responses import Response


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """It is done, and there is nothing to say about it."""


def json_response(value: msgspec.Struct) -> Response:
    """200 with the value."""
    return Response(msgspec.json.encode(value), media_type="application/json")
