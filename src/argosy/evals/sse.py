"""Server-sent events, incrementally: bytes in any cut, payloads of whole events out.

Source: WHATWG HTML, "9.2.6 Interpreting an event stream". Only the `data` field matters here; the three line ends
(LF, CRLF, CR) are all understood.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 4 * 1024 * 1024


class MalformedStream(ValueError):
    """The bytes are not an event stream one could read."""


class SseReader:
    """Holds the unfinished event between two `feed` calls."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._skip_lf = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads of the events that `chunk` completes. Raises: MalformedStream if one event is too large."""
        if self._skip_lf or b"\r" in chunk:
            chunk = self._with_lf_only(chunk)
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) + self._data_bytes > MAX_EVENT_BYTES:
            raise MalformedStream(f"one event is larger than {MAX_EVENT_BYTES} bytes")
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                    self._data = []
                    self._data_bytes = 0
            elif line.startswith(b"data:"):
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                self._data.append(value)
                self._data_bytes += len(value)
        return events

    def _with_lf_only(self, chunk: bytes) -> bytes:
        if self._skip_lf and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = False
        self._skip_lf = self._skip_lf or chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
