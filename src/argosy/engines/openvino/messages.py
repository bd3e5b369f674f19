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
from argosy.core.sampling import Constraint

# A prompt of a million tokens is 5 MB of msgpack.
MAX_FRAME_BYTES = 64 * 2**20
_HEADER = struct.Struct("<I")


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """First command: load these files."""

    model_path: str
    architecture: str
    digest: str
    settings: EngineSettings
    kv_cache_tokens: int


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """Run this request with the next step. `config` holds fields of openvino_genai.GenerationConfig."""

    number: int
    prompt_token_ids: tuple[int, ...]
    config: dict[str, Any]
    constraint: Constraint | None = None


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """Forget this request and free its cache."""

    number: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """The pipeline is loaded. phases: what the start consisted of, in seconds."""

    version: str
    device: str
    kv_cache_tokens: int
    max_num_seqs: int
    has_tokenizer: bool
    phases: dict[str, float]


class Gain(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What one request gained in one step. ending: why it ended (`stop`, `length`, `abort`), or an error text."""

    number: int
    token_ids: list[int]
    logprobs: list[float] | None = None
    ending: str | None = None
    error: str | None = None


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
