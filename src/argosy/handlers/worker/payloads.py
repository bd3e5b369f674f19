"""Values in and out of a handler: what bytes of a client it sees as what, and what its results become.

A result that is a tensor or an array becomes a JSON list. TorchServe answers a tensor with `torch.save`, which is a
pickle: reading it runs code in the client, so Argosy never writes one. Source: otf_message_handler.py of 0.12.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import msgspec

from argosy.core.prediction import InputPart, PredictRequest

_LOG = logging.getLogger("ts.worker")


class UnsupportedOutput(TypeError):
    """A result that is neither bytes, text nor JSON."""


def input_row(request: PredictRequest, *, decodes: bool) -> dict[str, Any]:
    """The request as a handler gets it: its parts by name, the last of one name."""
    return {part.name: _value(part, decodes=decodes) for part in request.parts}


def _value(part: InputPart, *, decodes: bool) -> Any:
    if decodes and part.content_type == "application/json":
        try:
            return json.loads(part.content.decode())
        except (ValueError, RecursionError):
            _LOG.warning("an input is not the JSON its content-type promises: passed on as bytes")
    elif decodes and part.content_type.startswith("text"):
        try:
            return part.content.decode()
        except UnicodeDecodeError:
            _LOG.warning("an input is not the UTF-8 text its content-type promises: passed on as bytes")
    return bytearray(part.content)


def request_headers(request: PredictRequest, sequence_key: str) -> dict[str, Any]:
    """What `context.get_request_header` answers from: the parts' types by their names, then the request's headers."""
    headers: dict[str, Any] = {part.name: {"content-type": part.content_type} for part in request.parts}
    headers.update(request.headers)
    if request.sequence_id:
        headers[sequence_key] = request.sequence_id
    return headers


def output_bytes(value: Any) -> bytes:
    """A result as the body of an answer. Raises: UnsupportedOutput."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    try:
        # As json.dumps(value, indent=2) writes it, four times as fast: that has no C code for an indent.
        text = _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise UnsupportedOutput(str(exc)) from exc
    try:
        return msgspec.json.format(text.encode(), indent=2)
    except msgspec.DecodeError:
        # NaN and Infinity are Python's, not JSON's; clients of TorchServe may read them all the same.
        return json.dumps(value, indent=2, default=_as_list).encode()


def _as_list(value: Any) -> Any:
    to_list = getattr(value, "tolist", None)
    if not callable(to_list):
        raise TypeError(f"a {type(value).__name__} is not JSON")
    return to_list()


_ENCODER = json.JSONEncoder(default=_as_list)
