"""What the OpenAI wire costs per streamed token, away from any engine and any socket.

    python -m benchmarks.stream_cost [--rounds 5] [--chunks 20000]

encode   a delta to the bytes of its event (`ChatChunks.event`): bar 12 µs.
respond  the same through `EventStream`: the generator, the writer and an ASGI `send` that does nothing.
full     a delta with log probabilities, which goes through the types.
decode   a chat request's bytes to its typed form and its `ChatPrompt`, once per request.

Process CPU time, median of the rounds, with the spread. Numbers of one machine compare only with themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from starlette.types import Message

from argosy.protocols.openai.answer_shape import AnswerShape
from argosy.protocols.openai.chat_answer import ChatChunks
from argosy.protocols.openai.chat_request import ChatCompletionRequest, chat_prompt
from argosy.protocols.openai.decode import BodyDecoder
from argosy.protocols.openai.event_stream import EventStream
from argosy.serving.delta import Delta, TokenText, Usage
from argosy.serving.timings import Timings

ENCODE_BAR_MICROSECONDS = 12.0
SHAPE = AnswerShape(id="chatcmpl-" + "0" * 32, created=1_750_000_000, model="smollm2")
PIECE = Delta(text=" token", token_ids=(4021,))
TOKEN = TokenText(token_id=4021, text=" token", logprob=-0.25, bytes_=b" token")
BODY = json.dumps(
    {
        "model": "smollm2",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why? " * 50}],
        "stream": True,
        "temperature": 0.7,
        "max_tokens": 128,
    }
).encode()


class Source:
    """So many pieces, then the end; waits for nothing."""

    def __init__(self, chunks: int) -> None:
        self.usage = Usage(prompt_tokens=10)
        self.timings = Timings(arrived=0.0)
        self._chunks = chunks

    async def __aenter__(self) -> Self:
        return self

    async def __aiter__(self) -> AsyncIterator[Delta]:
        for _ in range(self._chunks):
            yield PIECE
        yield Delta(finish_reason="stop")

    async def __aexit__(self, *_: object) -> None:
        return None


def encode(chunks: int) -> None:
    """Text-only deltas."""
    encoder = ChatChunks(SHAPE, Source(0))
    for _ in range(chunks):
        encoder.event(PIECE)


def full(chunks: int) -> None:
    """Deltas with log probabilities."""
    shape = AnswerShape(id=SHAPE.id, created=SHAPE.created, model=SHAPE.model, with_logprobs=True)
    encoder = ChatChunks(shape, Source(0))
    delta = Delta(text=" token", token_ids=(4021,), logprobs=(TOKEN,))
    for _ in range(chunks):
        encoder.event(delta)


def respond(chunks: int) -> None:
    """A whole response into a `send` that does nothing."""

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """Nowhere."""

    source = Source(chunks)
    asyncio.run(EventStream(source, ChatChunks(SHAPE, source))({"type": "http", "path": "/"}, receive, send))


def decode(chunks: int) -> None:
    """Requests."""
    decoder = BodyDecoder(ChatCompletionRequest)
    for _ in range(chunks):
        chat_prompt(decoder.decode(BODY))


WORK: dict[str, Callable[[int], None]] = {"encode": encode, "full": full, "respond": respond, "decode": decode}


def microseconds(work: Callable[[int], None], chunks: int) -> float:
    """CPU time of one chunk."""
    started = time.process_time()
    work(chunks)
    return (time.process_time() - started) / chunks * 1e6


def main() -> int:
    """Measure every kind in turn, round by round, so that a noisy moment hits all alike."""
    parser = argparse.ArgumentParser(description="The cost of the OpenAI wire per streamed token.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=20_000)
    arguments = parser.parse_args()
    samples: dict[str, list[float]] = {name: [] for name in WORK}
    for _ in range(arguments.rounds):
        for name, work in WORK.items():
            samples[name].append(microseconds(work, arguments.chunks))
    result: dict[str, Any] = {}
    for name, values in samples.items():
        result[name] = statistics.median(values)
        print(f"{name:8} {result[name]:7.2f} µs  ({min(values):.2f} to {max(values):.2f})")
    return 0 if result["encode"] <= ENCODE_BAR_MICROSECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
