"""Recorded exchanges, byte for byte: `tests/wire/openai/*.http`, a request and what must come back.

Each file holds a request as it stands on the wire, a line `====`, and the response: status line, the headers that
matter, an empty line and the exact body. Ids are counted and the clock stands still (`conftest.py`).
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.anyio

FILES = sorted((Path(__file__).parent.parent / "wire" / "openai").glob("*.http"))


def parts(text: bytes) -> tuple[str, dict[str, str], bytes]:
    """First line, headers and body of one message."""
    head, _, body = text.partition(b"\n\n")
    first, *lines = head.decode().split("\n")
    return first, dict(line.split(": ", 1) for line in lines), body


RECORDED = {path.stem: path.read_bytes() for path in FILES}


@pytest.mark.parametrize("name", RECORDED)
async def test_the_recorded_exchange_still_holds(client: httpx.AsyncClient, name: str) -> None:
    asked, _, expected = RECORDED[name].partition(b"\n====\n")
    line, headers, body = parts(asked)
    method, url, _ = line.split(" ")
    response = await client.request(method, url, headers=headers, content=body)
    status, expected_headers, expected_body = parts(expected)
    assert f"HTTP/1.1 {response.status_code}" == status
    assert {name: response.headers.get(name) for name in expected_headers} == expected_headers
    assert response.content == expected_body


def test_there_are_recordings() -> None:
    assert len(RECORDED) >= 20
