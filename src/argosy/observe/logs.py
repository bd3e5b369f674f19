"""Every log line: a constant phrase and facts as fields, one line each, whatever the facts contain (D-34).

JSON in production, short text on a terminal. Control characters (newlines, ANSI escapes) are escaped, long values cut,
values of secret-looking fields and anything that looks like a key replaced. Prompts are never passed to a logger.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import Any, TextIO

import msgspec

from argosy.observe.trace import current_request_id, current_traceparent

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}
_MAX_VALUE_CHARACTERS = 2_000
_MAX_TRACE_CHARACTERS = 20_000
_SECRET_FIELD = re.compile(r"(?i)(api[_-]?key|authorization|token$|secret|password|cookie)")
_SECRET_VALUE = re.compile(r"(?i)(bearer\s+|basic\s+|\b(?:ak|sk|hf)[-_])[A-Za-z0-9._~+/=-]{8,}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def redact(text: str) -> str:
    """`text` without what looks like a key."""
    return _SECRET_VALUE.sub(lambda match: match.group(1) + "[redacted]", text)


def one_line(text: str) -> str:
    """`text` with every control character escaped, so that it is one line and moves no terminal's cursor."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The facts of a record: what was passed as `extra`, made safe, and the ids of the request."""
    facts = {name: _safe(name, value) for name, value in record.__dict__.items() if name not in _STANDARD}
    for name, variable in (("request_id", current_request_id), ("traceparent", current_traceparent)):
        if value := variable.get():
            facts.setdefault(name, value)
    return facts


def _safe(name: str, value: object) -> object:
    if _SECRET_FIELD.search(name):
        return "[redacted]"
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = value if isinstance(value, str) else str(value)
    text = redact(text.encode("utf-8", "backslashreplace").decode())
    return text if len(text) <= _MAX_VALUE_CHARACTERS else text[:_MAX_VALUE_CHARACTERS] + "…"


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(_message(record)),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))[-_MAX_TRACE_CHARACTERS:]
        return one_line(msgspec.json.encode(line, enc_hook=str).decode())


class TextFormatter(logging.Formatter):
    """For a terminal: time, level, message, facts as key=value; a traceback on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of text."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        facts = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        line = one_line(f"{clock} {record.levelname.lower():7} {redact(_message(record))}  {facts}".rstrip())
        if record.exc_info:
            line += "\n" + redact(self.formatException(record.exc_info))[-_MAX_TRACE_CHARACTERS:]
        return line


def _message(record: logging.LogRecord) -> str:
    return record.getMessage().encode("utf-8", "backslashreplace").decode()


def configure_logging(level: str, *, is_json: bool, stream: TextIO | None = None) -> None:
    """Send every logger of the process to one handler on stderr. Called once, by the command."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("uvicorn.error", "uvicorn.access", "asyncio", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
