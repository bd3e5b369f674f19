"""The reference: Hugging Face transformers, one forward pass for one sequence at a time, in one thread.

Slow on purpose. There is no padding, no shared batch and no quantised arithmetic, so an answer depends on nothing but
its request, and the fast engines can be tested against it. The thread's queue is the scheduler: every running request
asks it for one step and waits, so requests take turns token by token, a late one joins at once, and one that is closed
leaves within a step.

Weights come from safetensors or GGUF only and are never unpickled (D-04); code in a model's folder is never run (D-11).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

from argosy.core.engine import EngineFeature, EngineInfo, EngineSettings, EngineStats
from argosy.core.errors import EngineDead, EngineError, SpecError
from argosy.core.generation import FinishReason, GenerateOutput, GenerateRequest
from argosy.core.model import ModelFiles, ModelFormat
from argosy.engines.dequantise import gguf_arguments
from argosy.engines.reference_sampling import Logits, Sampler

FEATURES = frozenset(
    {
        EngineFeature.SAMPLING,
        EngineFeature.SEED,
        EngineFeature.TOP_P,
        EngineFeature.TOP_K,
        EngineFeature.MIN_P,
        EngineFeature.PRESENCE_PENALTY,
        EngineFeature.FREQUENCY_PENALTY,
        EngineFeature.REPETITION_PENALTY,
        EngineFeature.MIN_TOKENS,
        EngineFeature.IGNORE_EOS,
        EngineFeature.STOP_TOKEN_IDS,
        EngineFeature.LOGPROBS,
        EngineFeature.TOP_LOGPROBS,
        EngineFeature.LOGIT_BIAS,
        EngineFeature.ALLOWED_TOKEN_IDS,
    }
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEFAULT_MAX_NUM_SEQS = 8
# A step is short enough that others wait little for it, and long enough that the matrices are worth multiplying.
DEFAULT_PREFILL_TOKENS = 512
T = TypeVar("T")


class RunningSequence:
    """One running request: its KV cache, what is still to be read, and its sampler."""

    def __init__(self, request: GenerateRequest, cache: Any) -> None:
        self.unread = request.prompt_token_ids
        self.cache = cache
        self.sampler = Sampler(request.sampling, request.prompt_token_ids)
        self.num_tokens = len(request.prompt_token_ids)


class TransformersEngine:
    """Any causal model of transformers, step by step. `engine_args`: dtype (float32, bfloat16, float16)."""

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        require_loadable(files)
        self._files = files
        self._settings = settings
        self._dtype = chosen_dtype(settings)
        self._device = torch.device(settings.device.lower())
        self._info = engine_info(files, settings, self._dtype)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transformers-engine")
        self._places = asyncio.Semaphore(self._info.max_num_seqs)
        self._running: dict[str, RunningSequence] = {}
        self._num_waiting = 0
        self._model: Any = None
        self._is_closed = False

    @property
    def info(self) -> EngineInfo:
        """The engine's facts."""
        return self._info

    async def start(self) -> None:
        """Load the weights. Cancels: the load ends in its thread and is dropped. Raises: SpecError, EngineError."""
        self._model = await self._in_thread(self._load)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateOutput]:
        """One token per output. Cancels: leaves after the step under way, its cache freed.

        Raises: EngineError for this request, EngineDead when the engine is not running.
        """
        if request.adapter is not None or request.sampling.constraint is not None:
            raise EngineError("the transformers engine serves neither adapters nor constraints: leave them out")
        await self.check_health()
        await self._take_place()
        try:
            sequence = RunningSequence(request, DynamicCache(config=self._model.config))
            self._running[request.request_id] = sequence
            while len(sequence.unread) > self._prefill_tokens:
                await self._in_thread(partial(self._read, sequence))
            finish_reason = None
            while finish_reason is None:
                output = await self._in_thread(partial(self._step, sequence, request))
                finish_reason = output.finish_reason
                yield output
        finally:
            self._running.pop(request.request_id, None)
            self._places.release()

    async def embed(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """The mean of the last hidden states, of unit length. Raises: EngineError, EngineDead."""
        return [await self._in_thread(partial(self._embed, ids)) for ids in prompts]

    def stats(self) -> EngineStats:
        """Who runs and waits; the cache is as full as the running sequences are long."""
        held = sum(sequence.num_tokens for sequence in self._running.values())
        return EngineStats(
            num_requests_running=len(self._running),
            num_requests_waiting=self._num_waiting,
            kv_cache_usage_ratio=min(held / self._info.kv_cache_tokens, 1.0),
        )

    async def check_health(self) -> None:
        """Healthy from start to close. Raises: EngineDead."""
        if self._is_closed or self._model is None:
            raise EngineDead("the transformers engine is not running: start a new one")

    async def close(self) -> None:
        """Running requests end with EngineDead at their next step; the weights are freed. Idempotent."""
        self._is_closed = True
        await asyncio.to_thread(self._thread.shutdown)
        self._model = None

    async def _take_place(self) -> None:
        self._num_waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._num_waiting -= 1

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """The result of `work` in the engine's thread. Cancels: waits until it is over, so nobody frees under it."""
        if self._is_closed:
            raise EngineDead("the transformers engine is closed: start a new one")
        future = self._thread.submit(_checked, work)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([asyncio.wrap_future(future)])
            raise

    @property
    def _prefill_tokens(self) -> int:
        return self._settings.max_num_batched_tokens or DEFAULT_PREFILL_TOKENS

    def _load(self) -> Any:
        if self._settings.num_threads:
            torch.set_num_threads(self._settings.num_threads)
        weights = self._files.weights[0]
        is_gguf = self._files.format is ModelFormat.GGUF
        safetensors = {"pretrained_model_name_or_path": self._files.root, "use_safetensors": True}
        try:
            model = AutoModelForCausalLM.from_pretrained(
                **(gguf_arguments(weights) if is_gguf else safetensors),
                dtype=self._dtype,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (ValueError, OSError, KeyError, ImportError) as error:
            raise SpecError(
                f"transformers {transformers.__version__} cannot load {self._files.ref}: {error}; "
                "check the model's files, or choose another --engine"
            ) from error
        return model.to(self._device).eval()

    def _read(self, sequence: RunningSequence) -> Any:
        """Feed the next tokens to the model. Returns its logits for what follows them: [1, 1, vocabulary]."""
        taken = sequence.unread[: self._prefill_tokens]
        sequence.unread = sequence.unread[len(taken) :]
        ids = torch.tensor([taken], device=self._device)
        return self._model(input_ids=ids, past_key_values=sequence.cache, use_cache=True, logits_to_keep=1).logits

    def _step(self, sequence: RunningSequence, request: GenerateRequest) -> GenerateOutput:
        logits_V: Logits = self._read(sequence)[0, -1].to(torch.float64).cpu().numpy()
        if not np.isfinite(logits_V).any():
            raise EngineError("the model answered with no finite number: its weights are damaged, fetch them again")
        token_id, logprob = sequence.sampler.choose(logits_V)
        sequence.unread = (token_id,)
        sequence.num_tokens += 1
        is_stop = token_id in request.sampling.stop_token_ids
        return GenerateOutput(
            token_ids=(token_id,),
            logprobs=() if logprob is None else (logprob,),
            finish_reason=FinishReason.STOP if is_stop else self._length_reason(sequence, request),
            stop_token_id=token_id if is_stop else None,
        )

    def _length_reason(self, sequence: RunningSequence, request: GenerateRequest) -> FinishReason | None:
        is_long = sequence.sampler.num_output_tokens >= request.sampling.max_tokens
        return FinishReason.LENGTH if is_long or sequence.num_tokens >= self._info.max_model_len else None

    def _embed(self, token_ids: tuple[int, ...]) -> list[float]:
        ids = torch.tensor([token_ids], device=self._device)
        states_TD = self._model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0].to(torch.float64)
        mean_D = states_TD.mean(dim=0)
        return [float(value) for value in mean_D / mean_D.norm()]


def _checked(work: Callable[[], T]) -> T:
    """Run `work` without gradients; what torch raises becomes this request's error."""
    try:
        with torch.inference_mode():
            return work()
    except (RuntimeError, IndexError, MemoryError) as error:
        raise EngineError(f"the forward pass failed: {error}; send a shorter request") from error


def require_loadable(files: ModelFiles) -> None:
    """Raises: SpecError unless every weight file is safetensors or GGUF (D-04)."""
    suffixes = {ModelFormat.GGUF: ".gguf", ModelFormat.SAFETENSORS: ".safetensors"}
    suffix = suffixes.get(files.format)
    wrong = [path.name for path in files.weights if path.suffix != suffix]
    if suffix is None or wrong or not files.weights:
        raise SpecError(
            f"{files.ref} holds {files.format} weights {', '.join(wrong)}: the transformers engine loads .safetensors "
            "and .gguf files only and never unpickles; fetch the model in one of these formats"
        )


def chosen_dtype(settings: EngineSettings) -> Any:
    """The torch dtype of engine_args. Raises: SpecError naming an unknown option or value."""
    arguments = dict(settings.engine_args)
    name = arguments.pop("dtype", "float32")
    if arguments or name not in DTYPES:
        raise SpecError(
            f"engine_args {settings.engine_args} do not fit the transformers engine: it knows dtype, "
            f"one of {', '.join(DTYPES)}"
        )
    return DTYPES[str(name)]


def engine_info(files: ModelFiles, settings: EngineSettings, dtype: Any) -> EngineInfo:
    """The facts that follow from model and settings. Raises: SpecError if the KV cache cannot hold one sequence."""
    max_model_len = min(settings.max_model_len or files.info.max_model_len, files.info.max_model_len)
    max_num_seqs = settings.max_num_seqs or DEFAULT_MAX_NUM_SEQS
    if settings.kv_cache_bytes is not None:
        affordable = settings.kv_cache_bytes // files.info.kv_bytes_per_token(dtype.itemsize)
        if affordable < max_model_len:
            raise SpecError(
                f"kv_cache_bytes {settings.kv_cache_bytes} holds {affordable} tokens, and one request may take "
                f"{max_model_len}: raise kv_cache_bytes or lower max_model_len"
            )
        max_num_seqs = min(max_num_seqs, affordable // max_model_len)
    return EngineInfo(
        name="transformers",
        version=transformers.__version__,
        device=settings.device,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        features=FEATURES,
        kv_cache_tokens=max_num_seqs * max_model_len,
    )
