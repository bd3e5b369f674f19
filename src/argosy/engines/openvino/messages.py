"""What travels between the server and its OpenVINO child: msgpack structs, each behind a 4-byte length.

Both ends are this same package on this same machine, so there are no versions; lengths are capped all the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from argosy.core.engine import EngineSettings
from argosy.core.errors import EngineError

# A prompt of a million tokens is 5 MB of msgpack.
MAX_FRAME_BYTES = 64 * 2**20
_HEADER = struct.Struct("<I")

# Of each token, the likeliest instead of it and their log probabilities, best first.
TopLogprobs = list[list[tuple[int, float]]]


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """First command: load this model, a folder in OpenVINO's format. is_checker: a toy over its vocabulary instead.

    vocabulary_path: a folder with a tokenizer in OpenVINO's format; empty if the tokens cannot be spelled.
    """

    model_path: str
    vocabulary_path: str
    settings: EngineSettings
    kv_cache_tokens: int
    is_checker: bool = False


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """Run this request with the next step.

    config: fields of openvino_genai.GenerationConfig. constraint: fields of its StructuredOutputConfig.
    num_top: how many of the likeliest tokens to report with each; 0 = none.
    """

    number: int
    prompt_token_ids: tuple[int, ...]
    config: dict[str, Any]
    stop_token_ids: tuple[int, ...] = ()
    constraint: dict[str, str] | None = None
    num_top: int = 0


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """Forget this request and free its cache."""

    number: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """The pipeline is loaded. eos_token_id: None = tokens cannot be spelled, so constraints cannot be used.

    phases: what the start consisted of, in seconds.
    """

    version: str
    device: str
    kv_cache_tokens: int
    max_num_seqs: int
    eos_token_id: int | None
    phases: dict[str, float]


class Gain(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What one request gained in one step. ending: why it ended (`stop`, `length`, `abort`), or an error text."""

    number: int
    token_ids: list[int]
    logprobs: list[float] | None = None
    ending: str | None = None
    error: str | None = None
    top: TopLogprobs | None = None


class Report(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """One step: gains of all requests, and the load after it."""

    gains: list[Gain]
    num_scheduled: int
    kv_cache_usage_ratio: float


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """The child cannot go on. is_spec_error: the files or settings are wrong, not the machine."""

    message: str
    is_spec_error: bool = False


Command = Load | Submit | Cancel
Event = Ready | Report | Failed

_ENCODER = msgspec.msgpack.Encoder(enc_hook=str)


def encode(message: Command | Event) -> bytes:
    """The message as one frame."""
    body = _ENCODER.encode(message)
    return _HEADER.pack(len(body)) + body


class FrameBuffer:
    """Bytes as they arrive become whole message bodies. Raises: EngineError on an impossible length."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def push(self, chunk: bytes) -> Iterator[bytes]:
        """The bodies that `chunk` completes."""
        self._bytes += chunk
        start = 0
        while len(self._bytes) - start >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._bytes, start)
            if size > MAX_FRAME_BYTES:
                raise EngineError(f"a frame of {size} bytes came from the engine; at most {MAX_FRAME_BYTES} may")
            end = start + _HEADER.size + size
            if len(self._bytes) < end:
                break
            yield bytes(memoryview(self._bytes)[start + _HEADER.size : end])
            start = end
        del self._bytes[:start]
