"""A replica that answers without thinking: what stands behind a proxy when the proxy is what is measured.

    python -m benchmarks.fake_replica --port 9000 [--chunks 200] [--chunk-interval-ms 0] [--chunks-per-write 1]

It speaks enough of the OpenAI API, of vLLM's metrics and of our own probes that a gateway takes it for a replica of
the model `fake`. Every answer is bytes made at start, the parser reports no header, and nothing is decoded: some ten
microseconds a request. A streamed answer has `max_tokens` chunks if the request names them, else `--chunks`.

Streams advance together, as an engine's step makes them: one step writes one piece to every open stream. Writes of
one step go to different sockets, so each piece is a system call and, to a proxy that keeps up, a read of its own.
`POST /pace/MILLISECONDS` changes the time between steps; 0 = as fast as the sockets take them. It answers how many
chats were asked so far, so that a proxy that answers by itself is found out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from typing import Any, cast

import httptools
import uvloop

MODEL = "fake"
# How every token's text begins in JSON: whoever counts these in an answer counts its tokens. They come in two kinds,
# in turn, because a proxy may take a model for stuck that says the same again and again (LiteLLM does after 100).
TOKEN_MARK = b'" token'
_TOKENS = (" token", " tokens")
# The text of every answer that is not streamed.
ANSWER_TEXT = "An answer of a few words, as a replica gives it."
# What `GET /replica/state` answers: the smallest state of a replica that takes requests.
REPLICA_STATE: dict[str, Any] = {
    "phase": "ready",
    "models": [MODEL],
    "num_requests_running": 0,
    "num_requests_waiting": 0,
    "kv_cache_usage_ratio": 0.0,
}
_METRICS = f"""\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="{MODEL}"}} 0.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{model_name="{MODEL}"}} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{model_name="{MODEL}"}} 0.0
"""
_IS_STREAM = re.compile(rb'"stream"\s*:\s*true')
_MAX_TOKENS = re.compile(rb'"max(?:_completion)?_tokens"\s*:\s*(\d+)')
_HEAD = {"id": "chatcmpl-" + "0" * 32, "created": 1_750_000_000, "model": MODEL}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def _whole(body: bytes, content_type: str = "application/json", status: str = "200 OK") -> bytes:
    """A response of known length."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _framed(events: bytes) -> bytes:
    """One chunk of the chunked coding."""
    return b"%x\r\n%s\r\n" % (len(events), events)


def _event(**fields: Any) -> bytes:
    return b"data: " + _json({**_HEAD, "object": "chat.completion.chunk", **fields}) + b"\n\n"


def _delta(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 16, "completion_tokens": tokens, "total_tokens": 16 + tokens}


_CHAT = _whole(
    _json(
        {
            **_HEAD,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": ANSWER_TEXT},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": _usage(11),
        }
    )
)
_ROLE = _framed(_delta({"role": "assistant", "content": ""}))
_GET = {
    b"/v1/models": _whole(_json({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "fake"}]})),
    b"/replica/state": _whole(_json(REPLICA_STATE)),
    b"/metrics": _whole(_METRICS.encode(), "text/plain; version=0.0.4"),
    **dict.fromkeys((b"/readyz", b"/health", b"/livez"), _whole(b'{"status":"ok"}')),
}
_UNKNOWN = _whole(b'{"error":{"message":"no such path"}}', status="404 Not Found")


class Steps:
    """Writes one piece to every open stream, again and again while there is one."""

    def __init__(self, chunks: int, interval_seconds: float, chunks_per_write: int) -> None:
        self.chunks = chunks
        self.interval_seconds = interval_seconds
        self.chunks_per_write = chunks_per_write
        self.chats_asked = 0
        # [kind of the first][n]: one write of n tokens: as many frames, since each is an event of its own.
        frames = [_framed(_delta({"content": text})) for text in _TOKENS]
        self._pieces = [
            [b"".join(frames[(kind + place) % 2] for place in range(count)) for count in range(chunks_per_write + 1)]
            for kind in range(2)
        ]
        self._streams: dict[_Connection, int] = {}
        self._next_at: float | None = None

    def open(self, connection: _Connection, tokens: int) -> None:
        """Begin a stream of `tokens` tokens with the next step."""
        connection.write(_STREAM_HEAD + _ROLE)
        self._streams[connection] = tokens
        connection.tokens = tokens
        self.wake()

    def wake(self) -> None:
        """There is a stream that takes writes (again)."""
        if self._next_at is None:
            self._next_at = asyncio.get_running_loop().time()
            self._plan()

    def close(self, connection: _Connection) -> None:
        """Its client has gone."""
        self._streams.pop(connection, None)

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        if self.interval_seconds and self._next_at is not None:
            # A late step does not put off the ones after it, unless it is late by a second.
            self._next_at = max(self._next_at + self.interval_seconds, loop.time() - 1.0)
            loop.call_at(self._next_at, self._step)
        else:
            loop.call_soon(self._step)

    def _step(self) -> None:
        ended = []
        wrote = False
        for connection, left in self._streams.items():
            if connection.is_paused:
                continue
            wrote = True
            count = min(left, self.chunks_per_write)
            connection.write(self._pieces[left % 2][count])
            self._streams[connection] = left - count
            if left == count:
                ended.append(connection)
        for connection in ended:
            del self._streams[connection]
            usage = _event(choices=[], usage=_usage(connection.tokens))
            connection.end(_framed(_delta({}, "stop")) + _framed(usage) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        if wrote and self._streams:
            self._plan()
        else:
            self._next_at = None  # nobody reads: sleep until somebody does, instead of turning in the proxy's way


class _Connection(asyncio.Protocol):
    """One connection, one request at a time. The parser calls no `on_header`, since there is none."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._parser = httptools.HttpRequestParser(self)
        self._url = self._body = b""
        self.is_paused = False
        self.tokens = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._steps.close(self)

    def pause_writing(self) -> None:
        """Called by the loop: the proxy does not read."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.is_paused = False
        self._steps.wake()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._url, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        """Called by the parser: answer."""
        if self._url == b"/v1/chat/completions":
            self._steps.chats_asked += 1
            if _IS_STREAM.search(self._body):
                named = _MAX_TOKENS.search(self._body)
                self._steps.open(self, int(named[1]) if named else self._steps.chunks)
            else:
                self.end(_CHAT)
        elif self._url.startswith(b"/pace/"):
            self._steps.interval_seconds = float(self._url[6:]) / 1000
            self.end(_whole(b"%d" % self._steps.chats_asked))
        else:
            self.end(_GET.get(self._url, _UNKNOWN))

    def end(self, last: bytes) -> None:
        """Write the last of the answer."""
        self.write(last)
        if not self._parser.should_keep_alive():
            self._transport.close()


async def serve(port: int, steps: Steps) -> None:
    """Answer on the loopback until cancelled. Cancels: closes the listener."""
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(steps), "127.0.0.1", port, backlog=1024, reuse_address=True
    )
    async with server:
        await server.serve_forever()


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--chunks", type=int, default=200, help="of a streamed answer without max_tokens")
    parser.add_argument("--chunk-interval-ms", type=float, default=0.0, help="between steps (default 0: none)")
    parser.add_argument("--chunks-per-write", type=int, default=1)
    flags = parser.parse_args(arguments)
    uvloop.run(serve(flags.port, Steps(flags.chunks, flags.chunk_interval_ms / 1000, flags.chunks_per_write)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
