"""The Engine socket over the OpenVINO child: submit a request, hand on what each step gains it, abort.

Each request owns a `Stream` (`stream.py`). Aborting sends Cancel and waits for the child's answer, which comes with the
next step, when the KV cache is free.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping

import msgspec

from argosy.artifacts.page_cache import read_ahead
from argosy.core.engine import EngineFeature, EngineInfo, EngineSettings, EngineStats
from argosy.core.errors import EngineDead, EngineError, SpecError
from argosy.core.generation import GenerateOutput, GenerateRequest
from argosy.core.model import ModelFiles
from argosy.engines.openvino import watchdog
from argosy.engines.openvino.channel import Channel
from argosy.engines.openvino.constraints import ConstraintChecker, constraint_fields
from argosy.engines.openvino.generation_config import CONSTRAINTS, FEATURES, generation_config
from argosy.engines.openvino.messages import Cancel, Event, Failed, Gain, Load, Ready, Report, Submit
from argosy.engines.openvino.preparation import Workplace, prepare
from argosy.engines.openvino.sizing import checker_load, kv_cache_tokens, require_known_arguments
from argosy.engines.openvino.stream import Stream

_WATCH_SECONDS = 1.0


def _ignore(_: str) -> None:
    """Nobody waits."""


class OpenVinoEngine:
    """Continuous batching on a CPU, in a child process."""

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        require_known_arguments(settings)
        self._files = files
        self._settings = settings
        self._max_model_len = min(settings.max_model_len or files.info.max_model_len, files.info.max_model_len)
        self._workplace = Workplace(settings.cache_dir)
        self._on_activity: Callable[[str], None] = _ignore
        self._prepare_seconds = 0.0
        self._channel = Channel(self._on_event, self._on_death)
        self._checker: ConstraintChecker | None = None
        self._streams: dict[int, Stream] = {}
        self._next_number = 0
        self._num_scheduled = 0
        self._kv_cache_usage_ratio = 0.0
        self._started: asyncio.Future[Ready] | None = None
        self._ready: Ready | None = None
        self._death: str | None = None
        self._is_closed = False
        self._watch_timer: asyncio.TimerHandle | None = None
        self._last_message = 0.0
        self._last_progress = watchdog.Pulse(now=0.0)

    @property
    def info(self) -> EngineInfo:
        """The engine's facts; complete once started."""
        ready = self._ready
        if ready is None:
            raise EngineError("the engine has not started: await start() first")
        return EngineInfo(
            name="openvino",
            version=ready.version,
            device=ready.device,
            max_model_len=min(self._max_model_len, ready.kv_cache_tokens),
            max_num_seqs=ready.max_num_seqs,
            features=self._features(ready),
            kv_cache_tokens=ready.kv_cache_tokens,
        )

    def _features(self, ready: Ready) -> frozenset[EngineFeature]:
        constraints = CONSTRAINTS if ready.eos_token_id is not None else frozenset()
        cache = {EngineFeature.PREFIX_CACHE} if self._settings.enable_prefix_caching else frozenset()
        return FEATURES | constraints | cache

    @property
    def start_seconds(self) -> Mapping[str, float]:
        """What the start consisted of; its parts in order."""
        phases = self._ready.phases if self._ready is not None else {}
        return {"prepare": self._prepare_seconds, **phases}

    def report_start(self, on_activity: Callable[[str], None]) -> None:
        """Tell `on_activity` what start() does whenever it takes long."""
        self._on_activity = on_activity

    async def start(self) -> None:
        """Start the child, prepare the model if that was never done, and load it.

        Cancels: leaves nothing running. Raises: EngineError; SpecError; ArtifactError if the disk is full.
        """
        self._started = asyncio.get_running_loop().create_future()
        try:
            await self._channel.open()  # first: its imports run beside what follows
            load = await self._prepared()
            self._checker = ConstraintChecker(checker_load(load))
            self._channel.send(load)
            self._ready = await self._started
        except BaseException:
            await self.close()
            raise

    async def _prepared(self) -> Load:
        began = time.perf_counter()
        prepared = await prepare(self._files, self._workplace.open(), self._on_activity)
        # The child is still importing: meanwhile the disk can read what it will load.
        await asyncio.to_thread(read_ahead, [prepared.model])
        self._prepare_seconds = time.perf_counter() - began
        self._on_activity("")
        return Load(
            model_path=str(prepared.model),
            vocabulary_path=str(prepared.vocabulary or ""),
            settings=self._settings,
            kv_cache_tokens=kv_cache_tokens(self._files.info, self._settings, self._max_model_len),
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateOutput]:
        """One sequence. Cancels: aborted, and its cache free, before aclose() returns.

        Raises: EngineError for this request, EngineDead for all.
        """
        self._require_alive()
        self._require_fitting(request)
        submit = await self._submission(request)
        stream = self._streams[submit.number] = Stream(request.sampling.logprobs is not None)
        self._channel.send(submit)
        self._watch()
        try:
            while not (stream.has_ended and not stream.gains):
                await stream.wait()
                yield stream.take()
        finally:
            try:
                if not stream.has_ended:
                    self._channel.send(Cancel(number=submit.number))
                    await stream.wait_for_end()
            finally:  # also if who waits for the end is cancelled once more
                self._streams.pop(submit.number, None)

    async def _submission(self, request: GenerateRequest) -> Submit:
        params = request.sampling
        constraint = params.constraint
        if constraint is not None and self._checker is not None:
            await self._checker.require_usable(constraint)
            self._require_alive()
            # An answer that must match ends when it has matched, whether or not the caller listed an end token.
            eos = self._ready.eos_token_id if self._ready is not None else None
            if eos is not None and not params.stop_token_ids:
                params = msgspec.structs.replace(params, stop_token_ids=(eos,))
        self._next_number += 1
        return Submit(
            number=self._next_number,
            prompt_token_ids=request.prompt_token_ids,
            config=generation_config(params, fallback_seed=secrets.randbits(31)),
            stop_token_ids=params.stop_token_ids,
            constraint=constraint_fields(constraint) if constraint is not None else None,
            num_top=params.logprobs or 0,
        )

    def stats(self) -> EngineStats:
        """The load after the last step."""
        num_open = len(self._streams)
        running = min(self._num_scheduled, num_open)
        return EngineStats(
            num_requests_running=running,
            num_requests_waiting=num_open - running,
            kv_cache_usage_ratio=self._kv_cache_usage_ratio if num_open else 0.0,
        )

    async def check_health(self) -> None:
        """Return if the child answers. Raises: EngineDead."""
        self._require_alive()

    async def close(self) -> None:
        """End the child; every open stream ends with EngineDead. Idempotent."""
        self._is_closed = True
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        self._fail_all("the engine was closed")
        await self._channel.close()
        if self._checker is not None:
            await self._checker.close()
        self._workplace.close()

    def _require_alive(self) -> None:
        if self._death is not None:
            raise EngineDead(self._death)
        if self._is_closed or self._ready is None:
            raise EngineDead("the engine is not running: start a new one")

    def _require_fitting(self, request: GenerateRequest) -> None:
        vocab_size = self._files.info.vocab_size
        if not request.prompt_token_ids:
            raise EngineError("the prompt has no tokens: send at least one")
        if not 0 <= min(request.prompt_token_ids) <= max(request.prompt_token_ids) < vocab_size:
            raise EngineError(f"a prompt token id is outside the model's vocabulary of {vocab_size}")
        capacity = self.info.kv_cache_tokens
        if len(request.prompt_token_ids) >= capacity:
            raise EngineError(
                f"the prompt has {len(request.prompt_token_ids)} tokens and the KV cache holds {capacity}: shorten the "
                "prompt or raise kv_cache_bytes"
            )
        if request.adapter is not None:
            raise EngineError("the openvino engine serves no adapters: merge it into the model, or use vllm")

    def _on_event(self, event: Event) -> None:
        self._last_message = asyncio.get_running_loop().time()
        if isinstance(event, Report):
            self._num_scheduled = event.num_scheduled
            self._kv_cache_usage_ratio = event.kv_cache_usage_ratio
            streams = self._streams
            for gain in event.gains:
                stream = streams.get(gain.number)
                if stream is not None:
                    stream.push(gain)
        elif isinstance(event, Ready):
            if self._started is not None and not self._started.done():
                self._started.set_result(event)
        else:
            self._on_failed(event)

    def _on_failed(self, event: Failed) -> None:
        if self._started is not None and not self._started.done():
            kind = SpecError if event.is_spec_error else EngineError
            self._started.set_exception(kind(f"the model cannot be loaded: {event.message}"))
        else:
            self._on_death(event.message)

    def _on_death(self, reason: str) -> None:
        self._death = self._death or f"the engine died: {reason}: restart the server"
        if self._started is not None and not self._started.done():
            self._started.set_exception(EngineDead(self._death))
        self._fail_all(self._death)

    def _fail_all(self, reason: str) -> None:
        for number, stream in self._streams.items():
            if not stream.has_ended:
                stream.push(Gain(number, [], None, "dead", reason))

    def _watch(self) -> None:
        """Look after the child while it owes answers. F-04."""
        if self._watch_timer is None and not self._is_closed and self._death is None:
            loop = asyncio.get_running_loop()
            self._last_message = loop.time()
            self._last_progress = self._pulse()
            self._watch_timer = loop.call_later(_WATCH_SECONDS, self._look)

    def _look(self) -> None:
        self._watch_timer = None
        owes_answers = any(not stream.has_ended for stream in self._streams.values())
        if not owes_answers or self._is_closed or self._death is not None:
            return
        pulse = self._pulse()
        if watchdog.has_progressed(self._last_progress, pulse):
            self._last_progress = pulse
        reason = watchdog.hang_reason(self._last_message, self._last_progress, pulse)
        if reason is None:
            self._watch_timer = asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._look)
            return
        self._channel.kill()
        self._on_death(f"its process hung ({reason}) and was killed")

    def _pulse(self) -> watchdog.Pulse:
        now = asyncio.get_running_loop().time()
        return watchdog.read_pulse(self._channel.pid or 0, now, os.sysconf("SC_CLK_TCK"))
