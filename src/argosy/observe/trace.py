"""Which request this is: ids accepted from callers only if well-formed, and carried to every log line.

Source: W3C Trace Context (traceparent: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextvars import ContextVar

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_IDS_AT_ONCE = 256
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

current_request_id: ContextVar[str] = ContextVar("argosy_request_id", default="")
current_traceparent: ContextVar[str] = ContextVar("argosy_traceparent", default="")


def _random_ids() -> Iterator[str]:
    """32 hex digits each. Many come from one call of the system's generator, which costs more than all the rest."""
    while True:
        digits = secrets.token_hex(16 * _IDS_AT_ONCE)
        for start in range(0, len(digits), 32):
            yield digits[start : start + 32]


_new_ids = _random_ids()


def request_id_from(header: str | None) -> str:
    """The caller's id if it is safe to log and to echo, else a new one."""
    if header is not None and _REQUEST_ID.fullmatch(header):
        return header
    return next(_new_ids)


def valid_traceparent(header: str | None) -> str:
    """The header as it came, or "" if there is none or it is malformed."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else ""


def traceparent_from(header: str | None) -> str:
    """The caller's trace with a span id of our own, or "" if there is none or it is malformed."""
    if header is None or not _TRACEPARENT.fullmatch(header):
        return ""
    version, trace_id, _, flags = header.split("-")
    return f"{version}-{trace_id}-{secrets.token_hex(8)}-{flags}"
