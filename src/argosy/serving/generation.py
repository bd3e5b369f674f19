"""One request being answered: takes a permit, merges the engine's streams, gives everything back on exit.

    async with served_model.generate(prepared) as generation:
        async for delta in generation:
            ...

Entering waits for a permit; nothing has been sent to the client yet, so a full queue is still a clean 429. Leaving,
for whatever reason, closes every engine stream before it returns: a client that goes away costs nothing from then on.

With one answer (nearly always) a delta passes one async generator between the engine and the protocol: no queue, no
task. With n answers one task per engine stream pumps into a bounded queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import msgspec

from argosy.core.errors import ArgosyError, DeadlineExceeded, EngineError
from argosy.core.generation import GenerateOutput
from argosy.core.interfaces import Engine
from argosy.serving.admission import Admission
from argosy.serving.admission_policy import Ticket
from argosy.serving.answer import Answer
from argosy.serving.delta import Delta, Usage
from argosy.serving.meters import ModelMeters
from argosy.serving.options import PreparedRequest
from argosy.serving.prefix_record import PrefixRecord
from argosy.serving.spans import write_span
from argosy.serving.timings import Timings
from argosy.text.tokenizer import Tokenizer

_BUFFERED_PER_ANSWER = 4


class Machinery(msgspec.Struct, frozen=True, kw_only=True):
    """What every generation of one served model shares. `clock` is monotonic, in seconds.

    prefixes: None if the engine has no prefix cache.
    """

    engine: Engine
    tokenizer: Tokenizer
    admission: Admission
    meters: ModelMeters
    clock: Callable[[], float]
    running: set[Generation]
    prefixes: PrefixRecord | None = None


class Generation:
    """The answers to one prepared request, as an async context manager over an async iterator of `Delta`.

    Cancels: cancelling or leaving aborts every engine stream before `__aexit__` returns, and frees the permit.
    Raises: on entering Overloaded, DeadlineExceeded; while iterating EngineError, EngineDead, DeadlineExceeded.
    """

    def __init__(self, prepared: PreparedRequest, machinery: Machinery) -> None:
        self.usage = Usage(prompt_tokens=prepared.prompt_tokens)
        self.timings = Timings(arrived=machinery.clock())
        self.prepared = prepared
        self._machinery = machinery
        self._answers = [Answer(index, prepared, machinery.tokenizer) for index in range(len(prepared.requests))]
        self._ticket = Ticket(
            principal=prepared.options.principal,
            sequences=len(prepared.requests),
            tokens=prepared.prompt_tokens + prepared.max_tokens,
            priority=prepared.options.priority,
        )
        self._deltas: AsyncGenerator[Delta] | None = None
        self._pumps: _Pumps | None = None
        self._interrupt = _Interrupt()

    async def __aenter__(self) -> Self:
        seconds = self.prepared.options.deadline_seconds
        deadline = None if seconds is None else self.timings.arrived + seconds
        meters = self._machinery.meters
        adapter = self.prepared.options.adapter or ""
        meters.adapters_waiting[adapter] += 1
        try:
            await self._machinery.admission.acquire(self._ticket, deadline)
        finally:
            meters.adapters_waiting[adapter] -= 1
        meters.adapters_running[adapter] += 1
        self.timings.admitted = now = self._machinery.clock()
        if deadline is not None:
            self._interrupt.at(deadline - now, _too_late(seconds))
        self._machinery.running.add(self)
        self._deltas = self._one() if len(self._answers) == 1 else self._several()
        return self

    def __aiter__(self) -> AsyncIterator[Delta]:
        if self._deltas is None:
            raise RuntimeError("a Generation is iterated inside `async with`")
        return self._deltas

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupt.disarm()
        self._machinery.running.discard(self)
        try:
            if self._deltas is not None:
                await self._deltas.aclose()
            if self._pumps is not None:
                await self._pumps.stop()
        finally:
            self.timings.left = self._machinery.clock()
            self._machinery.admission.release(self._ticket)
            self._machinery.meters.adapters_running[self.prepared.options.adapter or ""] -= 1
            self._record(kind)

    def interrupt(self, error: ArgosyError) -> None:
        """End the answers with `error`, which the iteration raises."""
        self._interrupt.now(error)

    async def _one(self) -> AsyncGenerator[Delta]:
        """The fast path: one answer, no queue, no task."""
        answer = self._answers[0]
        interrupt = self._interrupt
        last: Delta | None = None
        async with aclosing(self._machinery.engine.generate(self.prepared.requests[0])) as outputs:
            try:
                interrupt.begin_step()
                async for output in outputs:
                    interrupt.end_step()
                    delta = self._push(answer, output)
                    if answer.finish_reason is not None:
                        last = delta
                        break
                    yield delta
                    interrupt.begin_step()
            except asyncio.CancelledError:
                interrupt.explain(asyncio.current_task())
                raise
            finally:
                interrupt.end_step()
        if last is None:
            raise _silent_end()
        yield last

    async def _several(self) -> AsyncGenerator[Delta]:
        """Deltas of n answers in the order the engine makes them."""
        self._pumps = pumps = _Pumps(len(self._answers))
        await pumps.start([self._pump(index, pumps.queue) for index in range(len(self._answers))])
        unfinished = len(self._answers)
        while unfinished:
            self._interrupt.begin_step()
            try:
                item = await pumps.queue.get()
            except asyncio.CancelledError:
                self._interrupt.explain(asyncio.current_task())
                raise
            finally:
                self._interrupt.end_step()
            if isinstance(item, BaseException):
                raise item
            unfinished -= item.finish_reason is not None
            yield item

    async def _pump(self, index: int, queue: asyncio.Queue[Delta | BaseException]) -> None:
        """Move one engine stream into the queue. Cancels: the engine stream is closed."""
        answer = self._answers[index]
        last: Delta | None = None
        try:
            async with aclosing(self._machinery.engine.generate(self.prepared.requests[index])) as outputs:
                async for output in outputs:
                    delta = self._push(answer, output)
                    if answer.finish_reason is not None:
                        last = delta
                        break
                    await queue.put(delta)
            await queue.put(last or _silent_end())
        except Exception as error:  # noqa: BLE001  # boundary: carried to the consumer, who raises it
            await queue.put(error)

    def _push(self, answer: Answer, output: GenerateOutput) -> Delta:
        """Count one engine output and turn it into a delta."""
        count = len(output.token_ids)
        if count:
            self._count(count)
        if output.num_cached_tokens is not None:
            self.usage.cached_tokens = output.num_cached_tokens
        return answer.push(output)

    def _count(self, count: int) -> None:
        now = self._machinery.clock()
        timings = self.timings
        meters = self._machinery.meters
        if timings.last_token is None:
            timings.first_token = now
            meters.prompt_tokens.add(self.usage.prompt_tokens)
            if self._machinery.prefixes is not None:
                self._machinery.prefixes.enter(self.prepared.options.prefix_blocks, self.usage.prompt_tokens)
        else:
            meters.inter_token_latency.observe(now - timings.last_token)
        timings.last_token = now
        self.usage.completion_tokens += count
        meters.generation_tokens.add(count)

    def _record(self, kind: type[BaseException] | None) -> None:
        """Write the request into the books, once, however it ended."""
        if self._machinery.prefixes is not None:
            self._machinery.prefixes.add_answer(self.usage.completion_tokens)
        was_cut = kind is None or not issubclass(kind, Exception)
        unfinished = "abort" if was_cut else "error"
        reasons = [answer.finish_reason or unfinished for answer in self._answers]
        self._machinery.meters.record(self.prepared, self.usage, self.timings, reasons)
        write_span(self._machinery.meters.model_name, self.usage, self.timings, reasons)


def _silent_end() -> EngineError:
    return EngineError("the engine ended its stream without saying why: try the request again")


def _too_late(seconds: float | None) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the answer was not finished within {seconds:g} s: ask for fewer tokens or allow more time"
    )


class _Interrupt:
    """Ends a generation from outside with an error: its deadline passed, or the server must stop.

    Only a step of the engine is ever cancelled, never the protocol's own waiting (say, for a slow reader): outside
    of a step, the next one fails at once.
    """

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_in_step = False
        self._error: ArgosyError | None = None
        self._is_cancelling = False

    def at(self, seconds_from_now: float, error: ArgosyError) -> None:
        """Interrupt with `error` later."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(seconds_from_now, 0.0), self.now, error)

    def now(self, error: ArgosyError) -> None:
        """Interrupt with `error`; the first one counts."""
        if self._error is None:
            self._error = error
            if self._is_in_step and self._task is not None:
                self._is_cancelling = True
                self._task.cancel()

    def disarm(self) -> None:
        """Forget the deadline."""
        if self._timer is not None:
            self._timer.cancel()

    def begin_step(self) -> None:
        """The engine is about to be waited for. Raises: the error, if interrupted before."""
        if self._error is not None:
            raise self._error
        if self._task is None:
            self._task = asyncio.current_task()
        self._is_in_step = True

    def end_step(self) -> None:
        """The wait is over."""
        self._is_in_step = False

    def explain(self, task: asyncio.Task[Any] | None) -> None:
        """Raise the error instead of a cancellation that was ours and nobody else's."""
        if self._is_cancelling and self._error is not None and task is not None:
            self._is_cancelling = False
            if task.uncancel() == 0:
                raise self._error from None


class _Pumps:
    """The tasks behind n > 1: started together, stopped together, never left behind."""

    def __init__(self, count: int) -> None:
        self.queue: asyncio.Queue[Delta | BaseException] = asyncio.Queue(count * _BUFFERED_PER_ANSWER)
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, pumps: list[Coroutine[Any, Any, None]]) -> None:
        """Start one task per pump."""
        await self._group.__aenter__()
        self._tasks = [self._group.create_task(pump) for pump in pumps]

    async def stop(self) -> None:
        """Cancel every task and wait until each has closed its engine stream."""
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)
