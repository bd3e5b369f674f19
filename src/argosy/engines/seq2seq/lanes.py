"""The threads that decode, and which waiting rows go together.

A lane takes the oldest waiting row and every other one that can be decoded with it, up to `batch_size`, and has
CTranslate2 decode them. Rows leave one by one; when the last one has left, the lane takes what waits by then. It never
waits for a batch to fill: while all lanes are busy the next batch grows by itself, and when one is free, a request
alone is fastest alone. So `max_batch_delay` has no counterpart here.

One long answer keeps its lane busy long after the others of its batch have gone. So that nobody stands behind a few
such, there are as many lanes in reserve. They share the cores with the others, so they are no gain for anybody else,
and take only what has waited longer than two usual batches last.

CTranslate2 calls us for each token of each row, from a thread of its own. Its binding makes and destroys a Python
thread state around each call, which took a third of the time of a small model (measured); so the first call of each
thread keeps its state (`_keep_thread_state`).
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from argosy.core.errors import EngineDead, EngineError
from argosy.core.generation import FinishReason
from argosy.engines.seq2seq.request_rows import Row

_logger = logging.getLogger(__name__)

# Consumers look this often at an answer that grows: fifty times a second reads like all at once, and costs a loop that
# serves a thousand short answers a second next to nothing.
_LOOK_SECONDS = 0.02
_FIRST_USUAL_SECONDS = 0.02
_NEWEST_WEIGHT = 0.1
_UNUSUAL_RATIO = 4.0  # a batch that lasts longer than so many usual ones counts as so many
_PATIENCE_RATIO = 2.0  # usual batches, after which a waiting row may have a lane of the reserve
_JOIN_SECONDS = 10.0


class LaneSettings(msgspec.Struct, frozen=True, kw_only=True):
    """count: batches decoded at the same time, and as many in reserve. batch_size: rows of one.

    The others: CTranslate2's, of beams.
    """

    count: int
    batch_size: int
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0


def next_batch(waiting: Sequence[Row], batch_size: int) -> list[Row]:
    """The oldest row and those that can be decoded with it, oldest first. Pure."""
    if not waiting:
        return []
    decoding = waiting[0].decoding
    return [row for row in waiting if row.decoding == decoding][:batch_size]


def usual_seconds(before: float, seconds: float) -> float:
    """How long a batch usually lasts, now that another one has lasted `seconds`. Pure. Few long ones change little."""
    return before + _NEWEST_WEIGHT * (min(seconds, _UNUSUAL_RATIO * before) - before)


class Lanes:
    """Decodes rows until closed. `submit`, `withdraw` and `close` belong to the event loop."""

    def __init__(self, translator: Any, settings: LaneSettings) -> None:
        # The library ends the process with a message if its threads outlive the interpreter: let go in time, always.
        self._translator = [translator]
        weakref.finalize(self, self._translator.clear)
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Row] = deque()
        # One ring per row, and one for the reserve if all lanes are busy then; a stale ring finds nothing.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._reserve_bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._choosing = threading.Lock()  # between lanes only: the event loop never takes it
        self._num_busy = 0
        self._usual_seconds = _FIRST_USUAL_SECONDS
        self._kept = threading.local()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=f"seq2seq-lane-{index}", daemon=True)
            for work in (self._work, self._work_in_reserve)
            for index in range(settings.count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_waiting(self) -> int:
        """Rows no lane has yet."""
        return len(self._waiting)

    def submit(self, row: Row) -> None:
        """Let a lane take the row when one is free."""
        row.submitted_at = time.monotonic()
        self._waiting.append(row)
        self._bell.put(None)
        self._ring_for_reserve()

    async def withdraw(self, row: Row) -> None:
        """Give the row up: at once if it waits, with the step under way if a lane has it."""
        row.is_cancelled = True
        try:
            self._waiting.remove(row)
        except ValueError:
            await row.ended()
        else:
            row.end(FinishReason.ABORT)

    async def close(self) -> None:
        """End every row with EngineDead and the threads. Idempotent."""
        self._closing.set()
        for _ in self._threads:
            self._bell.put(None)
            self._reserve_bell.put(None)
        await asyncio.to_thread(self._join)
        for row in self._waiting:
            row.end(_closed())
            row.wake()
        self._waiting.clear()
        self._translator.clear()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def _work(self) -> None:
        while not self._closing.is_set():
            self._bell.get()
            self._decode_next()

    def _work_in_reserve(self) -> None:
        while not self._closing.is_set():
            self._reserve_bell.get()
            while (left := _PATIENCE_RATIO * self._usual_seconds - self._waiting_seconds()) > 0:
                if not self._waiting or self._closing.wait(left):
                    break
            else:
                self._decode_next()

    def _waiting_seconds(self) -> float:
        """How long the oldest waiting row has waited; 0 if none waits."""
        try:
            return time.monotonic() - self._waiting[0].submitted_at
        except IndexError:
            return 0.0

    def _decode_next(self) -> None:
        rows = [] if self._closing.is_set() else self._claim()
        if rows:
            self._ring_for_reserve()
            began = time.monotonic()
            self._decode(rows)
            with self._choosing:
                self._num_busy -= 1
                self._usual_seconds = usual_seconds(self._usual_seconds, time.monotonic() - began)
            self._wake_soon(rows)

    def _ring_for_reserve(self) -> None:
        if self._waiting and self._num_busy >= self._settings.count:
            self._reserve_bell.put(None)

    def _claim(self) -> list[Row]:
        """The next batch, taken out of the waiting rows. A row withdrawn meanwhile is no longer among them."""
        with self._choosing:
            claimed = []
            for row in next_batch(tuple(self._waiting), self._settings.batch_size):
                try:
                    self._waiting.remove(row)
                except ValueError:
                    continue
                claimed.append(row)
            self._num_busy += bool(claimed)
            return claimed

    def _decode(self, rows: list[Row]) -> None:
        """Decode to the end. If a batch fails, each of its rows that has gained nothing is tried alone (D-31)."""
        try:
            self._translate(rows)
            error = EngineError("the decoding ended without an end of this answer: report this, with the request")
        except Exception as failure:  # noqa: BLE001  # boundary: whatever the library raises fails these rows, no more
            _logger.warning("a batch failed", extra={"rows": len(rows), "error": str(failure)})
            fresh = [row for row in rows if row.ending is None and row.num_tokens == 0]
            if len(rows) > 1:
                for row in fresh:
                    self._decode([row])
            error = EngineError(f"CTranslate2 failed on this request: {failure}; change it, or use another engine")
        for row in rows:
            row.end(error)

    def _translate(self, rows: list[Row]) -> None:
        translator = self._translator[0]
        decoding = rows[0].decoding
        longest = max(row.max_tokens for row in rows)
        stops = sorted(decoding.stop_token_ids)
        options: dict[str, Any] = {
            "beam_size": decoding.beam_size,
            "max_decoding_length": longest,
            "min_decoding_length": decoding.min_tokens if stops else longest,
            "sampling_topk": decoding.top_k,
            "sampling_topp": decoding.top_p,
            "sampling_temperature": decoding.temperature,
            "repetition_penalty": decoding.repetition_penalty,
            "no_repeat_ngram_size": self._settings.no_repeat_ngram_size,
            "return_scores": decoding.with_scores,
            "return_end_token": True,
            "max_input_length": 0,
        }
        if stops:
            options["end_token"] = stops
        sources = [row.source for row in rows]
        if decoding.beam_size == 1:
            translator.translate_batch(sources, callback=self._token_taker(rows), **options)
            return
        answers = translator.translate_batch(sources, length_penalty=self._settings.length_penalty, **options)
        for row, answer in zip(rows, answers, strict=True):
            for token in answer.hypotheses[0]:
                row.gain(int(token), None)
            row.end(FinishReason.LENGTH)

    def _token_taker(self, rows: list[Row]) -> Callable[[Any], bool]:
        """What CTranslate2 calls for each token of each row; True takes the row out of the batch."""
        look_at = time.monotonic() + _LOOK_SECONDS
        live = dict(enumerate(rows))
        is_first = True

        def take(step: Any) -> bool:
            nonlocal look_at, is_first
            if is_first:
                is_first = False
                self._keep_thread_state()
            row = rows[step.batch_id]
            if self._closing.is_set():
                row.end(_closed())
            if row.ending is not None or row.gain(step.token_id, step.log_prob):
                live.pop(step.batch_id, None)
                self._wake_soon([row])
                return True
            now = time.monotonic()
            if now >= look_at:
                look_at = now + _LOOK_SECONDS
                self._wake_soon(list(live.values()))
            return False

        return take

    def _wake_soon(self, rows: list[Row]) -> None:
        try:
            self._loop.call_soon_threadsafe(_wake_all, rows)
        except RuntimeError:
            _logger.debug("the event loop is gone: nobody waits for these rows any more")

    def _keep_thread_state(self) -> None:
        """Let this thread of CTranslate2 keep its Python thread state: the count of its users never returns to zero."""
        if not hasattr(self._kept, "is_kept"):
            self._kept.is_kept = True
            ctypes.pythonapi.PyGILState_Ensure()


def _wake_all(rows: list[Row]) -> None:
    for row in rows:
        row.wake()


def _closed() -> EngineDead:
    return EngineDead("the seq2seq engine is closed: start a new one")
