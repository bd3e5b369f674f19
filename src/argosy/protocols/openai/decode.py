"""Bytes to a typed request, once; everything that can be wrong with them becomes a 400 that names the field.

The usual request costs one pass of msgspec. Only when that finds an unknown field do we look again: a field we know
and do not honour (`unhonoured.py`) may still hold a value that asks for nothing, and everything else gets a hint.

Duplicate keys: the last one wins, as in every JSON reader our clients use. NaN, Infinity, lone surrogates, bytes
that are not UTF-8 and nesting beyond the reader's limit are refused (D-25).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from argosy.core.errors import InvalidRequest, UnsupportedParameter
from argosy.protocols.openai.unhonoured import UNHONOURED

MAX_DEPTH = 64  # of a schema or a tool's parameters: whatever walks them afterwards recurses.

_Body = TypeVar("_Body", bound=msgspec.Struct)

_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$(.*)`)?", re.DOTALL)
_PATH = re.compile(r" - at `(?:key` in `)?\$\.?([^`]*)`")


class BodyDecoder(Generic[_Body]):
    """Decodes request bodies of one type."""

    def __init__(self, body_type: type[_Body]) -> None:
        self._decoder = msgspec.json.Decoder(body_type)
        self._fields = body_type.__struct_encode_fields__

    async def read(self, request: Request) -> _Body:
        """The request's body. Raises: InvalidRequest, UnsupportedParameter."""
        _require_json(request)
        try:
            body = await request.body()
        except ClientDisconnect as exc:
            raise InvalidRequest("the client closed the connection before the body was complete") from exc
        return self.decode(body)

    def decode(self, body: bytes) -> _Body:
        """The typed body. Raises: InvalidRequest, UnsupportedParameter."""
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as exc:
            unknown = _UNKNOWN_FIELD.match(str(exc))
            if unknown is None:
                raise _refusal(exc) from exc
            if unknown.group(2):
                raise _unknown_inside(unknown.group(1), unknown.group(2)) from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise _malformed(exc) from exc
        return self._decode_without_neutral_fields(body)

    def _decode_without_neutral_fields(self, body: bytes) -> _Body:
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise _malformed(exc) from exc
        for name in [name for name in fields if name not in self._fields]:
            unhonoured = UNHONOURED.get(name)
            if unhonoured is None:
                raise _unknown(name, (*self._fields, *UNHONOURED))
            value = fields.pop(name)
            if value is not None and value not in unhonoured.neutral:
                raise UnsupportedParameter(unhonoured.refusal(name), param=name)
        try:
            return self._decoder.decode(msgspec.json.encode(fields))
        except msgspec.ValidationError as exc:
            raise _refusal(exc) from exc


def require_shallow(value: Any, param: str) -> None:
    """Refuse a free-form JSON value nested deeper than `MAX_DEPTH`. Raises: InvalidRequest."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise InvalidRequest(f"{param} is nested deeper than {MAX_DEPTH} levels: flatten it", param=param)


def _children(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise InvalidRequest(
            f"Unsupported Media Type: Only 'application/json' is allowed, got {_short(media_type)!r}: "
            "send the header 'Content-Type: application/json'"
        )


def _refusal(exc: msgspec.ValidationError) -> InvalidRequest:
    """msgspec's own words, which name field, rule and type, with the path as `param`."""
    text = str(exc)
    where = _PATH.search(text)
    return InvalidRequest(text, param=where.group(1) or None if where else None)


def _malformed(exc: Exception) -> InvalidRequest:
    if isinstance(exc, RecursionError):
        return InvalidRequest("the body is nested too deeply to be read: flatten it")
    if isinstance(exc, UnicodeDecodeError):
        return InvalidRequest(f"the body is not UTF-8: {exc.reason} at byte {exc.start}: send UTF-8")
    return InvalidRequest(f"the body is not JSON: {exc}: send one JSON object")


def _unknown(name: str, known: Sequence[str]) -> InvalidRequest:
    near = difflib.get_close_matches(name[:64], known, n=1)
    hint = f": did you mean `{near[0]}`?" if near else ": remove it"
    return InvalidRequest(f"Object contains unknown field `{_short(name)}`{hint}", param=_short(name))


def _unknown_inside(name: str, path: str) -> InvalidRequest:
    where = f"{path.lstrip('.')}.{_short(name)}"
    return InvalidRequest(f"Object contains unknown field `{_short(name)}` - at `${path}`: remove it", param=where)


def _short(text: str) -> str:
    return text if len(text) <= 64 else text[:61] + "..."
