"""What an answer cost and whether it is one: read from the bytes that pass, without decoding a stream's chunks.

A replica that is asked to (`x-argosy-usage: 1`) ends a stream with one comment line, which clients never see:

    : usage {"prompt_tokens":16,"completion_tokens":200}

A whole answer carries its usage in the body. It is decoded here anyway, because a replica whose answers are no JSON,
or have no choices, must not be trusted with the next request (F-15).
Source: WHATWG HTML, "Server-sent events": a line that begins with a colon is a comment.
"""

from __future__ import annotations

import msgspec

from argosy.gateway.transport import FailureKind, ReplicaFailure

USAGE_HEADER = (b"x-argosy-usage", b"1")
_MARK = b": usage "
_END = b"\n\n"
_DONE = b"data: [DONE]\n\n"
_ERROR = b'data: {"error"'
_MAX_EVENT_BYTES = 2**20


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answer, as the replica counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Body(msgspec.Struct):
    usage: Usage | None = None
    choices: list[msgspec.Raw] | None = None


_comment_decoder = msgspec.json.Decoder(Usage)
_body_decoder = msgspec.json.Decoder(_Body)


def usage_of(body: bytes) -> Usage | None:
    """The usage in a whole answer; None if it has none. Raises: ReplicaFailure if this is no answer."""
    try:
        decoded = _body_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ReplicaFailure(FailureKind.INVALID, f"the replica's answer is not what it says to be: {exc}") from exc
    if decoded.choices is not None and not decoded.choices:
        raise ReplicaFailure(FailureKind.INVALID, "the replica's answer holds no choice")
    return decoded.usage


class EventFilter:
    """Passes a stream's whole events on, less the usage comment. usage: once seen.

    Only whole events, so that an error event can follow at any time: half an event before it would spoil both.
    """

    __slots__ = ("_held", "_last", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._held = b""
        self._last = b""

    @property
    def is_done(self) -> bool:
        """Whether `[DONE]` came."""
        return self._last.endswith(_DONE)

    @property
    def has_error(self) -> bool:
        """Whether the replica said at the end why it fails."""
        return _ERROR in self._last

    def feed(self, piece: bytes) -> bytes:
        """What of it the client gets now. Raises: ReplicaFailure if an event has no end."""
        if self._held:
            piece = self._held + piece
            self._held = b""
        if piece[-2:] != _END:
            cut = piece.rfind(_END) + 1
            cut += cut > 0
            piece, self._held = piece[:cut], piece[cut:]
            if len(self._held) > _MAX_EVENT_BYTES:
                raise ReplicaFailure(FailureKind.INVALID, f"an event of the stream is over {_MAX_EVENT_BYTES} bytes")
        if _MARK in piece:
            piece = self._without_usage(piece)
        if piece:
            self._last = piece
        return piece

    def _without_usage(self, events: bytes) -> bytes:
        """The events but those that are the comment; the mark in a model's text is not at the start of an event."""
        kept = []
        for event in events.split(_END)[:-1]:
            if event.startswith(_MARK):
                self._read(event[len(_MARK) :])
            else:
                kept.append(event + _END)
        return b"".join(kept)

    def _read(self, text: bytes) -> None:
        try:
            self.usage = _comment_decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.usage = None
