"""One call of an archive's handler, as values: what a client sent, and what comes back, whole or in pieces.

They cross a process boundary as msgpack, so they hold bytes and text and nothing else.
"""

from __future__ import annotations

import msgspec


class InputPart(msgspec.Struct, frozen=True, kw_only=True):
    """One input by its name: a part of a form, a query parameter, or "body" for a body that is no form.

    content_type: as the client declared it, without parameters, in lower case; "" = it did not.
    """

    name: str
    content: bytes
    content_type: str = ""


class PredictRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request for a handler. headers: the client's, by lower-case name, and those the protocol adds.

    sequence_id: requests with the same one meet the same worker; "" = none. starts_sequence, ends_sequence: whether
    this is its first, or its last. requested_version: the version the client named; "" = it left the choice to us.
    """

    request_id: str
    parts: tuple[InputPart, ...]
    headers: dict[str, str] = {}
    sequence_id: str = ""
    starts_sequence: bool = False
    ends_sequence: bool = False
    requested_version: str = ""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the answer to one request of a batch; most answers have one piece.

    index: which request of the batch. status, phrase: as the handler set them. content_type: "" = it set none.
    is_last: nothing follows for this index.
    """

    index: int
    body: bytes
    status: int = 200
    phrase: str = ""
    content_type: str = ""
    headers: dict[str, str] = {}
    is_last: bool = True


class WorkerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one worker now. started_at: unix seconds. memory_bytes: resident; 0 = not known.

    pid: None for a predictor that lives in this process.
    """

    pid: int | None = None
    started_at: float = 0.0
    memory_bytes: int = 0


class HandlerMetric(msgspec.Struct, frozen=True, kw_only=True):
    """One observation a handler reported. kind: counter, gauge or histogram. unit: as it named it (`ms`, `MB`, …)."""

    name: str
    value: float
    unit: str = ""
    kind: str = "counter"
    dimensions: dict[str, str] = {}
