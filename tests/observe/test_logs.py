"""Log lines stay single, safe and silent about secrets (D-34)."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.observe.logs import JsonFormatter, TextFormatter
from argosy.observe.trace import current_request_id, request_id_from, traceparent_from


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("argosy.test", logging.INFO, __file__, 1, message, None, None)
    made.__dict__.update(extra)
    return made


@given(st.text(), st.text())
def test_d34_whatever_is_logged_is_one_printable_line(message: str, value: str) -> None:
    for formatter in (JsonFormatter(), TextFormatter()):
        line = formatter.format(record(message.replace("%", ""), path=value))
        assert line.splitlines() == [line] or line == ""
        assert "\x1b" not in line
    assert json.loads(JsonFormatter().format(record("x", path=value)))["message"] == "x"


@pytest.mark.parametrize("secret", ["ak-abcdefghijklmnopqrstuvwxyz", "sk-0123456789abcdef", "hf_abcdefghijklmnop"])
def test_d34_keys_are_redacted_wherever_they_appear(secret: str) -> None:
    for formatter in (JsonFormatter(), TextFormatter()):
        line = formatter.format(
            record(f"got {secret}", header=f"Bearer {secret}", api_key="plain", path=f"/?k={secret}")
        )
        assert secret not in line
        assert "plain" not in line


def test_d34_a_traceback_is_inside_the_line_and_redacted() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("argosy.test.traceback")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        raise ValueError("Bearer ak-abcdefghijklmnop\nsecond line")
    except ValueError:
        logger.exception("failed")
    logger.removeHandler(handler)
    assert stream.getvalue().count("\n") == 1
    assert "ak-abcdefgh" not in stream.getvalue()
    assert "ValueError" in json.loads(stream.getvalue())["exception"]


def test_facts_of_the_request_are_on_every_line() -> None:
    token = current_request_id.set("abc")
    line = json.loads(JsonFormatter().format(record("ready", model="m", seconds=1.5)))
    current_request_id.reset(token)
    assert (line["request_id"], line["model"], line["seconds"], line["level"]) == ("abc", "m", 1.5, "info")


@pytest.mark.parametrize("sent", [None, "", "a" * 65, "a b", "a\nb", "-a", "é", '"', "<script>"])
def test_d34_a_request_id_that_is_not_safe_is_replaced(sent: str | None) -> None:
    given_id = request_id_from(sent)
    assert given_id != sent
    assert len(given_id) == 32


def test_a_safe_request_id_and_trace_are_kept() -> None:
    assert request_id_from("req-1.a:b_c") == "req-1.a:b_c"
    parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    ours = traceparent_from(parent)
    assert ours.split("-")[1] == "a" * 32
    assert ours.split("-")[2] != "b" * 16


@pytest.mark.parametrize(
    "sent", [None, "", "00-" + "0" * 32 + "-" + "b" * 16 + "-01", "01-x", "00-" + "A" * 32 + "-" + "b" * 16 + "-01"]
)
def test_a_malformed_trace_is_dropped(sent: str | None) -> None:
    assert traceparent_from(sent) == ""
