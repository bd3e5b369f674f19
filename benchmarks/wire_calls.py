"""Calls to a server on several ports, written down in YAML, played byte for byte, and what it answered, as JSON.

A case is a few calls in a row. The client here is a bare socket with a parser, because what is recorded is the wire:
a reason phrase, the pieces of a chunked answer, whether the connection stays open. Nothing is retried and nothing is
followed. A call that names `times` or `together` is made several times at the same moment.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httptools
import msgspec
import yaml

ANSWER_SECONDS = 20.0
UNTIL_SECONDS = 30.0
UNTIL_PAUSE_SECONDS = 0.1
KEPT_HEADERS = (
    *("content-type", "connection", "pragma", "cache-control", "expires", "x-request-id", "allow"),
    *("www-authenticate", "retry-after", "access-control-allow-origin", "access-control-allow-methods"),
    *("access-control-allow-headers", "x-answer", "x-other"),
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BOUNDARY = "argosy-parts"


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One part of a multipart form."""

    name: str
    value: str
    filename: str = ""
    type: str = ""


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call. `call`: method, port's name, path; at most one of body, json, form, parts, hex, zeros is its body.

    bearer: whose key to send (inference, management, API). times: so many at once; together: JSON bodies, all at once.
    until: repeat until this status; until_text: until the body matches. match: how answers are compared (wire_compare).
    """

    call: str
    headers: dict[str, str] = {}
    body: str | None = None
    json: Any = msgspec.UNSET
    form: dict[str, str] | None = None
    parts: tuple[Part, ...] = ()
    hex: str = ""
    zeros: int = 0
    bearer: str = ""
    times: int = 1
    together: tuple[Any, ...] = ()
    until: int = 0
    until_text: str = ""
    match: str = "exact"


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls in a row, against a server set up as its profile says."""

    case: str
    steps: tuple[Call, ...]
    profile: str = "open"
    note: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came back. body: parsed JSON or text (bytes that are not UTF-8 as Latin-1); pieces: of a chunked answer."""

    status: int
    reason: str = ""
    headers: dict[str, str] = {}
    body: Any = None
    pieces: tuple[str, ...] = ()
    is_json: bool = False


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server listens. key: the token of one kind, asked for when a call names it; words: put into paths."""

    urls: Mapping[str, str]
    key: Callable[[str], str] = str
    words: Mapping[str, str] = {}


def load_cases(folder: Path) -> dict[str, list[Case]]:
    """The cases of each YAML file of a folder. Raises: ValueError on two of one name, msgspec.ValidationError."""
    files = {
        path.stem: msgspec.convert(yaml.safe_load(path.read_text()), list[Case])
        for path in sorted(folder.glob("*.yaml"))
    }
    names = [case.case for cases in files.values() for case in cases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{folder}: cases called the same: {', '.join(sorted(twice))}")
    return files


def play(case: Case, ports: Ports) -> list[list[Answer]]:
    """The answers to each step: one, or as many as are made at once, in the order of their bodies."""
    return [_play_step(step, ports) for step in case.steps]


def _play_step(step: Call, ports: Ports) -> list[Answer]:
    bodies: Sequence[Any] = step.together or [step.json] * step.times
    if len(bodies) == 1:
        return [_repeat(step, ports)]
    with ThreadPoolExecutor(len(bodies)) as threads:
        calls = [msgspec.structs.replace(step, json=body) for body in bodies]
        return list(threads.map(lambda call: exchange(call, ports), calls))


def _repeat(step: Call, ports: Ports) -> Answer:
    """Once, or until the answer is the awaited one or the time is up: the last answer is given then."""
    deadline = time.monotonic() + UNTIL_SECONDS
    while True:
        answer = exchange(step, ports)
        text = answer.body if isinstance(answer.body, str) else msgspec.json.encode(answer.body).decode()
        is_awaited = (not step.until or answer.status == step.until) and (
            not step.until_text or re.search(step.until_text, text, re.DOTALL)
        )
        if is_awaited or time.monotonic() > deadline:
            return answer
        time.sleep(UNTIL_PAUSE_SECONDS)


def request_bytes(call: Call, ports: Ports) -> tuple[str, bytes]:
    """The port's name and the bytes to send. Raises: ValueError if `call` is not three words."""
    method, port, target = call.call.split(" ")
    for word, value in ports.words.items():
        target = target.replace("{" + word + "}", value)
    headers = {"Host": urllib.parse.urlsplit(ports.urls[port]).netloc, "Accept": "*/*", **call.headers}
    if call.bearer:
        headers["Authorization"] = f"Bearer {ports.key(call.bearer)}"
    body, content_type = _body(call)
    if content_type:
        headers.setdefault("Content-Type", content_type)
    if body or method in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = str(len(body))
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return port, head.encode() + b"\r\n" + body


def _body(call: Call) -> tuple[bytes, str]:
    if call.json is not msgspec.UNSET:
        return msgspec.json.encode(call.json), "application/json"
    if call.form is not None:
        return urllib.parse.urlencode(call.form).encode(), "application/x-www-form-urlencoded"
    if call.parts:
        return b"".join(map(_part, call.parts)) + f"--{_BOUNDARY}--\r\n".encode(), (
            f"multipart/form-data; boundary={_BOUNDARY}"
        )
    if call.hex or call.zeros:
        return bytes.fromhex(call.hex) or b"0" * call.zeros, ""
    return (call.body or "").encode(), ""


def _part(part: Part) -> bytes:
    filename = f'; filename="{part.filename}"' if part.filename else ""
    content_type = f"Content-Type: {part.type}\r\n" if part.type else ""
    disposition = f'Content-Disposition: form-data; name="{part.name}"{filename}\r\n'
    return f"--{_BOUNDARY}\r\n{disposition}{content_type}\r\n{part.value}\r\n".encode()


class _Reader:
    """Takes one answer apart. Callbacks are httptools'."""

    def __init__(self) -> None:
        self.reason, self.is_whole = "", False
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self._is_new_piece = True

    def on_status(self, status: bytes) -> None:
        self.reason += status.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        if self._is_new_piece or "transfer-encoding" not in self.headers:
            self.pieces.append(body)
        else:
            self.pieces[-1] += body
        self._is_new_piece = False

    def on_chunk_complete(self) -> None:
        self._is_new_piece = True

    def on_message_complete(self) -> None:
        self.is_whole = True


def exchange(call: Call, ports: Ports) -> Answer:
    """Send one call on a connection of its own. No answer, or none in time, is an answer too: of status 0.

    Raises: OSError if nobody listens, httptools.HttpParserError.
    """
    port, request = request_bytes(call, ports)
    target = urllib.parse.urlsplit(ports.urls[port])
    reader = _Reader()
    parser = httptools.HttpResponseParser(reader)
    with socket.create_connection((target.hostname or "", target.port or 80), ANSWER_SECONDS) as wire:
        # A server that refuses a body by its length may close before it has read it: its answer still counts.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.sendall(request)
        try:
            while not reader.is_whole and (data := wire.recv(65536)):
                parser.feed_data(data)
        except (TimeoutError, ConnectionResetError) as error:
            return Answer(status=0, reason="no answer", body=repr(error))
    return _answer(parser.get_status_code(), reader, ports.words)


def _answer(status: int, reader: _Reader, words: Mapping[str, str]) -> Answer:
    raw = b"".join(reader.pieces)
    for word, value in words.items():
        raw = raw.replace(f"127.0.0.1:{value}".encode(), b"127.0.0.1:{%s}" % word.encode())
    body: Any
    is_json = False
    try:
        body = raw.decode()
        if raw.lstrip()[:1] in (b"{", b"["):
            body, is_json = msgspec.json.decode(raw), True
    except (UnicodeDecodeError, msgspec.DecodeError):
        body = raw.decode("latin-1")
    headers = {name: reader.headers[name] for name in KEPT_HEADERS if name in reader.headers}
    if _UUID.fullmatch(headers.get("x-request-id", "")):
        headers["x-request-id"] = "<uuid>"
    is_chunked = reader.headers.get("transfer-encoding") == "chunked"
    pieces = tuple(piece.decode("latin-1") for piece in reader.pieces) if is_chunked else ()
    return Answer(status=status, reason=reader.reason, headers=headers, body=body, pieces=pieces, is_json=is_json)
