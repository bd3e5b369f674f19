"""`ts.handler_utils.utils` and `ts.protocol.otf_message_handler`: pieces of an answer before its end."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from argosy.handlers.worker.context import Context, PredictResponse


def send_intermediate_predict_response(
    ret: Sequence[Any], req_id_map: Mapping[int, str], message: str, code: int, context: Context
) -> None:
    """Send one piece to each request of `req_id_map` now; what `handle` returns later is the last piece.

    Requests that are over are passed over. Status and text are those set in `context`; `message` and `code` are
    TorchServe's and not needed.
    """
    del message, code
    if os.environ.get("LOCAL_RANK", "0") == "0" and context.cl_socket is not None:
        context.cl_socket.sendall(PredictResponse(ret, req_id_map))


def create_predict_response(
    ret: Sequence[Any],
    req_id_map: Mapping[int, str],
    message: str,
    code: int,
    context: Context | None = None,
    ts_stream_next: bool = False,
) -> PredictResponse:
    """What `context.cl_socket.sendall` takes. Raises: ValueError for what is not an intermediate piece."""
    del message, code
    if context is None or not ts_stream_next:
        raise ValueError("only intermediate pieces are sent by hand: return the last one from handle()")
    return PredictResponse(ret, req_id_map)


def import_class(class_name: str, module_prefix: str | None = None) -> type:
    """A class by its dotted name. Raises: ImportError."""
    module_name, _, name = class_name.rpartition(".")
    full = ".".join(part for part in (module_prefix or "", module_name) if part)
    if not full or not name:
        raise ImportError(f"{class_name!r} does not name a module and a class")
    found: type | None = getattr(importlib.import_module(full), name, None)
    if found is None:
        raise ImportError(f"the module {full} has no class {name}")
    return found
