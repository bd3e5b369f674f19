"""One streamed chat request, timed: for figures of a single client."""

from __future__ import annotations

import msgspec
import uvloop

from argosy.evals.probe import monotonic
from argosy.evals.records import RequestRecord
from argosy.evals.stream_client import StreamClient, parse_target


def chat(url: str, text: str, *, max_tokens: int, model: str | None = None) -> RequestRecord:
    """The record of one chat request over a new connection. Raises: RuntimeError if it failed."""
    body: dict[str, object] = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }

    async def ask() -> RequestRecord:
        client = StreamClient(parse_target(url), monotonic, api_key=None, timeout_seconds=300.0)
        try:
            name = model or msgspec.json.decode((await client.get("/models")).json_body)["data"][0]["id"]
            record = RequestRecord(index=0, intended_at=monotonic(), chunk_times=[])
            await client.ask("/chat/completions", msgspec.json.encode({"model": name, **body}), record)
            return record
        finally:
            client.close()

    record = uvloop.run(ask())
    if record.error is not None or record.ttft_seconds is None:
        raise RuntimeError(f"{url}: {record.error} {record.error_detail}")
    return record
