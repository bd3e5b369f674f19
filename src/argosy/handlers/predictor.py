"""One worker behind the `Predictor` socket: batches go to its process, pieces of answers come back.

How it ends, and what its callers then get:
- it dies by itself, or by the kernel for want of memory: WorkerDied or OutOfResources, at once (F-03, F-05);
- its handler does not answer within the response timeout: it is ended, WorkerDied (F-04);
- it is held still by a signal, or idle and does not answer a ping: it is ended within three seconds, WorkerDied (F-04);
- its handler ran out of memory: OutOfResources, and it ends itself.
A new worker is the pool's matter: this object serves one process, once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from argosy.core.errors import EngineError, HandlerError, NotBegun, OutOfResources, SpecError, WorkerDied
from argosy.core.model_archive import ModelArchive, VersionSettings
from argosy.core.prediction import HandlerMetric, Prediction, PredictRequest, WorkerFacts
from argosy.handlers.answers import check_answer
from argosy.handlers.conversation import Conversation
from argosy.handlers.instructions import load_command
from argosy.handlers.nursery import Nursery, StartedWorker
from argosy.handlers.output import OutputLines
from argosy.handlers.preloading import imports_of
from argosy.handlers.processes import WorkerProcess, count_oom_kills, is_stopped, resident_bytes
from argosy.handlers.worker.messages import Answer, Describe, Described, Event, Failed, Ping, Predict, Ready

_LOG = logging.getLogger(__name__)
WATCH_SECONDS = 1.0
_MAX_UNANSWERED_PINGS = 2
# So that a worker with short calls finds the next one waiting when it has answered.
MAX_CALLS_AHEAD = 3
_EXIT_SECONDS = 1.0
_LAST_WORDS_SECONDS = 0.2


class WorkerPredictor:
    """A Predictor over one worker process. seat: its number in the server's log and the management API."""

    def __init__(self, archive: ModelArchive, settings: VersionSettings, seat: int, nursery: Nursery) -> None:
        self._archive = archive
        self._settings = settings
        self._seat = seat
        self._nursery = nursery
        self._conversation = Conversation(self._end, self._death)
        self._is_ready = False
        self._process: WorkerProcess | None = None
        self._output: asyncio.BaseTransport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._ending = ""
        self._has_ended = asyncio.Event()
        self._was_stopped = False
        self._started_at = 0.0
        # What the machine's kernel had counted at the last look, and at the one before.
        self._oom_kills = (0, 0)
        self._on_metric: Callable[[HandlerMetric], None] = lambda metric: None

    async def start(self) -> None:
        """Start the process and load the archive in it.

        Cancels: leaves nothing running. Raises: EngineError with what the handler said, OutOfResources, SpecError.
        """
        seconds = self._settings.startup_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._start()
        except TimeoutError:
            await self.close()
            raise EngineError(
                f"a worker of {self._label} was not ready within {seconds:g} s: see its lines in the log, "
                "or raise startupTimeout"
            ) from None
        except BaseException:  # whatever happened, also a cancellation: nothing is left
            await self.close()
            raise

    @property
    def max_calls_ahead(self) -> int:
        """See CallsAhead."""
        return MAX_CALLS_AHEAD

    async def predict(self, batch: Sequence[PredictRequest]) -> AsyncGenerator[Prediction]:
        """See Predictor. A call that is given up may end by itself within a second; then its worker is ended."""
        self._check_usable()
        requests = tuple(batch)
        call = self._conversation.open(
            lambda number: Predict(number, requests), self._settings.response_timeout_seconds
        )
        try:
            while True:
                event = self._noted(await self._conversation.take(call))
                if not isinstance(event, Answer):
                    raise self._error_of(event)
                check_answer(event, len(requests))
                for prediction in event.predictions:
                    yield prediction
                if event.is_end:
                    return
        finally:
            if not call.is_over or call.events:
                await self._conversation.give_up(call)

    async def describe(self) -> Any:
        """See Predictor."""
        self._check_usable()
        call = self._conversation.open(Describe, self._settings.response_timeout_seconds)
        try:
            event = self._noted(await self._conversation.take(call))
        finally:
            if not call.is_over or call.events:
                await self._conversation.give_up(call)
        if isinstance(event, Described):
            return event.value
        raise self._error_of(event)

    def facts(self) -> WorkerFacts:
        """See Predictor."""
        if self._process is None or self._process.has_ended:
            return WorkerFacts(started_at=self._started_at)
        pid = self._process.pid
        return WorkerFacts(pid=pid, started_at=self._started_at, memory_bytes=resident_bytes(pid))

    def report_metrics(self, on_metric: Callable[[HandlerMetric], None]) -> None:
        """See Predictor."""
        self._on_metric = on_metric

    async def ended(self) -> EngineError:
        """Return why, once the worker cannot be used any more, also if it was idle."""
        await self._has_ended.wait()
        return await self._death()

    async def close(self) -> None:
        """End the worker; a call that runs is given up. Idempotent."""
        self._note_ending("it was closed")
        if self._watch is not None:
            self._watch.cancel()
        self._conversation.close()
        process = self._process
        if process is not None and not process.has_ended:
            if not self._conversation.is_idle or not self._is_ready:
                process.kill()
            try:
                async with asyncio.timeout(_EXIT_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            except asyncio.CancelledError:
                process.kill()
                raise
        if self._output is not None:
            self._output.close()

    @property
    def _label(self) -> str:
        model = self._archive.manifest.model
        return f"{model.model_name} {model.model_version}"

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        imports = await asyncio.to_thread(imports_of, self._archive)
        self._oom_kills = (count_oom_kills(),) * 2
        started = await self._nursery.start_worker(self._archive.environment, imports)
        self._process = started.process
        self._started_at = time.time()
        model = self._archive.manifest.model
        labels: dict[str, str | int] = {
            "model_name": model.model_name, "model_version": model.model_version, "worker": self._seat,
        }  # fmt: skip
        await self._connect(started, labels)
        self._process.on_exit = self._process_ended
        if self._process.has_ended:
            self._process_ended()
        load = load_command(self._archive, self._settings, self._seat, self._nursery.options)
        call = self._conversation.open(lambda number: load, self._settings.startup_timeout_seconds)
        event = self._noted(await self._conversation.take(call))
        if not isinstance(event, Ready):
            raise self._error_of(event)
        self._is_ready = True
        self._watch = loop.call_later(WATCH_SECONDS, self._look)
        _LOG.info("a worker is ready", extra={**labels, "pid": self._process.pid, **event.phases})

    async def _connect(self, started: StartedWorker, labels: dict[str, str | int]) -> None:
        loop = asyncio.get_running_loop()
        output = os.fdopen(started.output, "rb", buffering=0)
        try:
            self._output, _ = await loop.connect_read_pipe(lambda: OutputLines(labels, time.monotonic), output)
            await loop.create_unix_connection(lambda: self._conversation.channel, sock=started.connection)
        except BaseException:  # whatever happened, also a cancellation: nothing is left open
            started.connection.close()
            if self._output is None:
                output.close()
            raise

    def _noted(self, event: Event) -> Event:
        """The event, with what it tells of besides its answer taken in."""
        if isinstance(event, Answer | Failed | Ready):
            for metric in event.metrics:
                self._on_metric(metric)
        if isinstance(event, Failed) and event.kind == "memory":
            self._note_ending("its handler ran out of memory")
        return event

    def _error_of(self, event: Event) -> EngineError | SpecError:
        if not isinstance(event, Failed):
            self._end(f"it sent {type(event).__name__}, which nobody asked for")
            return WorkerDied(f"The worker of {self._label} broke its protocol and was ended")
        if event.kind == "spec":
            return SpecError(f"{self._archive.url}: {event.message}")
        if event.kind == "memory":
            return OutOfResources(event.message)
        if not self._is_ready:
            return EngineError(f"{self._archive.url}: {event.message}: {event.cause}")
        return HandlerError(event.message, status=event.status, cause=event.cause)

    def _check_usable(self) -> None:
        if self._ending or not self._is_ready:
            raise NotBegun(f"the worker of {self._label} cannot be used: {self._ending or 'it was not started'}")

    async def _death(self) -> EngineError:
        """Why it ended, as the error of those who waited for it."""
        if self._process is None:
            return WorkerDied(f"a worker of {self._label} never started")
        self._process.kill()
        code = await self._process.exit_code()
        if not self._ending.startswith("its") and code == -signal.SIGKILL and count_oom_kills() > self._oom_kills[0]:
            return OutOfResources("Out of resources")
        if "memory" in self._ending:
            return OutOfResources("Out of resources")
        return WorkerDied(f"the worker of {self._label} ended: {self._ending or _in_words(code)}")

    def _process_ended(self) -> None:
        self._note_ending(self._conversation.channel.fault or "")
        self._has_ended.set()
        # What it sent before its end is read first. A process that it started may hold its socket open, so the end of
        # the socket is not waited for.
        asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, self._conversation.close)

    def _note_ending(self, reason: str) -> None:
        self._ending = self._ending or reason

    def _end(self, reason: str) -> None:
        if not self._ending:
            self._note_ending(reason)
            _LOG.warning("a worker is ended", extra={"model_name": self._label, "worker": self._seat, "reason": reason})
        if self._process is not None:
            self._process.kill()

    def _look(self) -> None:
        """Once a second: is it held still, does it answer while idle?"""
        process = self._process
        if process is None or process.has_ended or self._ending:
            return
        stopped = is_stopped(process.pid)
        if stopped and self._was_stopped:
            self._end("its process was held still by a signal")
            return
        self._was_stopped = stopped
        self._oom_kills = (self._oom_kills[1], count_oom_kills())
        if self._conversation.is_idle:
            channel = self._conversation.channel
            if channel.num_unanswered_pings >= _MAX_UNANSWERED_PINGS:
                self._end("its process does not answer")
                return
            channel.num_unanswered_pings += 1
            channel.send(Ping())
        self._watch = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._look)


def _in_words(code: int | None) -> str:
    if code is None:
        return "its process is gone"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"
