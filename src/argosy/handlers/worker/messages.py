"""What travels between the server and a worker, and between the server and a nursery: msgpack, never pickle (D-23).

To a worker each message goes behind a 4-byte length over an inherited socket pair without a name, so there is nothing
to connect to; to a nursery each is one packet, with descriptors attached. Both ends are this package on one machine, so
there are no versions. A worker runs code of strangers all the same: what it sends is capped, decoded by type, checked.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from argosy.core.errors import EngineError
from argosy.core.prediction import HandlerMetric, Prediction, PredictRequest

# A batch of 64 requests of TorchServe's largest default size (6,553,500 bytes) fits.
MAX_FRAME_BYTES = 512 * 2**20
MAX_PACKET_BYTES = 64 * 2**10
HEADER = struct.Struct("<I")


class DeclaredMetric(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A metric that a `metrics.yaml` declares in its `model_metrics`. kind: counter, gauge or histogram."""

    name: str
    kind: str
    unit: str = ""
    dimensions: tuple[str, ...] = ()


class Limits(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a worker may take. memory_bytes: of its own, beyond what it starts with; None = no limit.

    threads: of one library call; the process may have more.
    """

    threads: int = 1
    memory_bytes: int | None = None
    open_files: int = 4096


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """First command to a worker: load this archive.

    manifest: as MANIFEST.json has it. config: the model-config.yaml. environment: directory of the packages that its
    requirements file asks for; "" = none. gpu: its device; None = the CPU. envelope: "" = none.
    decodes_input: JSON arrives parsed and text as str, else everything as bytes. allowed_content: what the base handler
    may load though it can run code.
    """

    root: str
    environment: str
    manifest: dict[str, Any]
    config: dict[str, Any]
    batch_size: int
    limits: Limits
    gpu: int | None = None
    envelope: str = ""
    decodes_input: bool = True
    limits_image_pixels: bool = True
    allowed_content: tuple[str, ...] = ()
    declared_metrics: tuple[DeclaredMetric, ...] = ()


class Predict(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Call the handler with these requests as one batch. number: of the call, counting up."""

    number: int
    batch: tuple[PredictRequest, ...]


class Describe(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Ask the handler what it says of itself. number: of the call, counting up."""

    number: int


class Drop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Nobody waits for that call any more: if it has not begun, end it with an empty answer."""

    number: int


class Ping(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Say that you live."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """The handler is initialised. phases: what the start consisted of, in seconds."""

    phases: dict[str, float]
    metrics: tuple[HandlerMetric, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """Pieces of the answers to one batch. is_end: the call is over. number: of the call, if it is not."""

    predictions: tuple[Prediction, ...]
    metrics: tuple[HandlerMetric, ...] = ()
    is_end: bool = True
    number: int = 0


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """The start, the call or the description failed. kind: `handler`, `memory` (the worker then ends), `spec`.

    cause: the exception's type and text, for whoever wrote the handler.
    """

    kind: str
    message: str
    status: int = 503
    cause: str = ""
    metrics: tuple[HandlerMetric, ...] = ()


class Described(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What the handler says of itself, as JSON values."""

    value: Any


class Pong(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """It lives."""


class Fork(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """To a nursery: import what is missing, then fork a worker with the two descriptors attached: socket, output."""

    imports: tuple[str, ...] = ()


class Forked(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The worker runs. Its pidfd is attached."""

    pid: int


class Refused(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The nursery cannot fork safely, and why: start the worker as a process of its own."""

    reason: str


class Exited(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A worker ended. code: as subprocess has it, negative for a signal."""

    pid: int
    code: int


Command = Load | Predict | Describe | Drop | Ping
Event = Ready | Answer | Failed | Described | Pong
NurseryEvent = Forked | Refused | Exited

_ENCODER = msgspec.msgpack.Encoder(enc_hook=str)
COMMANDS = msgspec.msgpack.Decoder(Command)
EVENTS = msgspec.msgpack.Decoder(Event)
FORKS = msgspec.msgpack.Decoder(Fork)
NURSERY_EVENTS = msgspec.msgpack.Decoder(NurseryEvent)


def packet(message: Fork | NurseryEvent) -> bytes:
    """The message as one packet to or from a nursery."""
    return _ENCODER.encode(message)


def frame(message: Command | Event) -> bytes:
    """The message as one frame. Raises: EngineError if it cannot be written, or is longer than may be."""
    try:
        body = _ENCODER.encode(message)
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise EngineError(f"a message to or from a worker cannot be written: {exc}") from exc
    if len(body) > MAX_FRAME_BYTES:
        raise EngineError(f"a message of {len(body)} bytes is too long for a worker; at most {MAX_FRAME_BYTES} may be")
    return HEADER.pack(len(body)) + body


def text_of(value: object) -> str:
    """What `str` says of a value of an archive's, as text that can be sent; whatever the value's own code does."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  # boundary: the archive's own code
        text = f"a {type(value).__name__} that cannot be written as text"
    return text.encode("utf-8", "backslashreplace").decode()


class FrameBuffer:
    """Bytes as they arrive become whole message bodies."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._bytes = bytearray()
        self._max_frame_bytes = max_frame_bytes

    def push(self, chunk: bytes) -> list[bytes]:
        """The bodies that `chunk` completes. Raises: EngineError on an impossible length."""
        self._bytes += chunk
        bodies = []
        start = 0
        while len(self._bytes) - start >= HEADER.size:
            (size,) = HEADER.unpack_from(self._bytes, start)
            if size > self._max_frame_bytes:
                raise EngineError(f"a frame of {size} bytes came from a worker; at most {self._max_frame_bytes} may")
            end = start + HEADER.size + size
            if len(self._bytes) < end:
                break
            bodies.append(bytes(memoryview(self._bytes)[start + HEADER.size : end]))
            start = end
        del self._bytes[:start]
        return bodies
