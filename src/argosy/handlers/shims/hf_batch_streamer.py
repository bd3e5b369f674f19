"""`TextIteratorStreamerBatch`: the growing texts of a whole batch, for transformers' `generate(streamer=…)`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

_streamers: Any = importlib.import_module("transformers.generation.streamers")


class TextIteratorStreamerBatch:
    """One streamer for each request; iterating gives a list of `{"text": …}` until the first of them ends."""

    def __init__(
        self,
        tokenizer: Any,
        batch_size: int,
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_kwargs: Any,
    ) -> None:
        self.batch_size = batch_size
        self.streamers = [
            _streamers.TextIteratorStreamer(tokenizer, skip_prompt, timeout, **decode_kwargs) for _ in range(batch_size)
        ]
        self._texts: list[Iterator[str]] = [iter(each) for each in self.streamers]

    def put(self, value: Any) -> None:
        """New tokens of every request. Raises: ValueError for another number of requests."""
        if value.shape[0] != self.batch_size:
            raise ValueError(f"the streamer was made for {self.batch_size} requests and got tokens of {value.shape[0]}")
        for index, streamer in enumerate(self.streamers):
            streamer.put(value[index : index + 1])

    def end(self) -> None:
        """No tokens follow."""
        for streamer in self.streamers:
            streamer.end()

    def __iter__(self) -> Iterator[list[dict[str, str]]]:
        return self

    def __next__(self) -> list[dict[str, str]]:
        return [{"text": next(each)} for each in self._texts]
