"""The Engine socket over CTranslate2: convert once, load, hand rows to the lanes, hand on what they gain.

The encoder-decoder families answer a whole text with a whole text, so most answers are short and come in one or two
outputs. Nothing here knows of text: tokens are named by their ids.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import ctranslate2
import msgspec

from argosy.core.engine import EngineFeature, EngineInfo, EngineSettings, EngineStats
from argosy.core.errors import EngineDead, EngineError, SpecError
from argosy.core.generation import GenerateOutput, GenerateRequest
from argosy.core.model import ModelFiles
from argosy.engines.seq2seq.conversion import ensure_converted, require_convertible
from argosy.engines.seq2seq.lanes import Lanes, LaneSettings
from argosy.engines.seq2seq.request_rows import Row

FEATURES = frozenset(
    {
        EngineFeature.SAMPLING,
        EngineFeature.TOP_P,
        EngineFeature.TOP_K,
        EngineFeature.REPETITION_PENALTY,
        EngineFeature.MIN_TOKENS,
        EngineFeature.IGNORE_EOS,
        EngineFeature.STOP_TOKEN_IDS,
        EngineFeature.LOGPROBS,
    }
)
DEFAULT_MAX_NUM_SEQS = 128
_MOST = 1024
_SMALL_PARAMETERS = 100_000_000
_MOST_LANES = 8


class Seq2SeqArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine's `engine_args`.

    compute_type: what the weights are kept and multiplied as; "" = int8, on a GPU float16. lanes: batches decoded at
    the same time; 0 = one per core for a small model, else two. batch_size: rows of one. The others: docs/seq2seq.md.
    """

    compute_type: str = ""
    lanes: int = 0
    batch_size: int = 32
    beam_size: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0


class Seq2SeqEngine:
    """T5 and mT5 in safetensors, decoded by CTranslate2."""

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        """Raises: SpecError if the family, the format or an argument does not fit."""
        require_convertible(files)
        self._files = files
        self._settings = settings
        self._device = "cuda" if settings.device.lower() in ("cuda", "gpu", "nvidia") else settings.device.lower()
        self._threads = settings.num_threads or len(os.sched_getaffinity(0))
        self._arguments = with_lanes(checked_arguments(settings, self._device), files, self._threads)
        self._info = engine_info(files, settings, self._arguments)
        self._lanes: Lanes | None = None
        self._rows: set[Row] = set()
        self._is_closed = False
        self._on_activity: Callable[[str], None] = lambda _: None
        self.start_seconds: dict[str, float] = {}

    @property
    def info(self) -> EngineInfo:
        """The engine's facts."""
        return self._info

    def report_start(self, on_activity: Callable[[str], None]) -> None:
        """Call `on_activity` with what start() does."""
        self._on_activity = on_activity

    async def start(self) -> None:
        """Convert the weights if nobody has, and load them. Cancels: what is loaded is dropped. Raises: SpecError."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="argosy-seq2seq-") as passing:
            cache_dir = self._settings.cache_dir or Path(passing)
            folder = await ensure_converted(self._files, cache_dir, self._arguments.compute_type, self._on_activity)
            converted = time.monotonic()
            translator = await asyncio.to_thread(self._load, folder)
        self.start_seconds = {"conversion": converted - began, "load": time.monotonic() - converted}
        most = max(1, self._info.max_num_seqs // self._arguments.lanes)
        self._lanes = Lanes(
            translator,
            LaneSettings(
                count=self._arguments.lanes,
                batch_size=min(self._arguments.batch_size, most),
                length_penalty=self._arguments.length_penalty,
                no_repeat_ngram_size=self._arguments.no_repeat_ngram_size,
            ),
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateOutput]:
        """The answer, in as many outputs as it takes 20 ms; one with a beam. Cancels: leaves with the step under way.

        Raises: EngineError for this request, EngineDead when the engine is not running.
        """
        lanes = self._running()
        self._check(request)
        row = Row(request, self._arguments.beam_size)
        self._rows.add(row)
        lanes.submit(row)
        try:
            finish_reason = None
            while finish_reason is None:
                output = await row.take()
                finish_reason = output.finish_reason
                yield output
        finally:
            if row.ending is None:
                await lanes.withdraw(row)
            self._rows.discard(row)

    def stats(self) -> EngineStats:
        """Who runs and waits; there is room for max_num_seqs rows."""
        waiting = self._lanes.num_waiting if self._lanes else 0
        return EngineStats(
            num_requests_running=max(len(self._rows) - waiting, 0),
            num_requests_waiting=waiting,
            kv_cache_usage_ratio=min(len(self._rows) / self._info.max_num_seqs, 1.0),
        )

    async def check_health(self) -> None:
        """Healthy from start to close. Raises: EngineDead."""
        self._running()

    async def close(self) -> None:
        """Rows end with EngineDead, the threads end, the weights are freed. Idempotent."""
        self._is_closed = True
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            await lanes.close()

    def _running(self) -> Lanes:
        if self._lanes is None or self._is_closed:
            raise EngineDead("the seq2seq engine is not running: start a new one")
        return self._lanes

    def _check(self, request: GenerateRequest) -> None:
        if request.adapter is not None or request.sampling.constraint is not None:
            raise EngineError("the seq2seq engine serves neither adapters nor constraints: leave them out")
        size = self._files.info.vocab_size
        if (
            not request.prompt_token_ids
            or not 0 <= min(request.prompt_token_ids) <= max(request.prompt_token_ids) < size
        ):
            raise EngineError(f"the prompt must hold token ids from 0 to {size - 1}, and at least one")

    def _load(self, folder: Path) -> Any:
        try:
            translator = ctranslate2.Translator(
                str(folder),
                device=self._device,
                compute_type=self._arguments.compute_type,
                inter_threads=2 * self._arguments.lanes,
                intra_threads=max(1, self._threads // self._arguments.lanes),
            )
            translator.translate_batch([["0"]], beam_size=1, max_decoding_length=1)
        except (RuntimeError, ValueError) as error:
            raise SpecError(f"CTranslate2 {ctranslate2.__version__} cannot load {self._files.ref}: {error}") from error
        return translator


def checked_arguments(settings: EngineSettings, device: str) -> Seq2SeqArguments:
    """The engine's arguments, complete. Raises: SpecError naming a wrong one."""
    try:
        arguments = msgspec.convert(settings.engine_args, Seq2SeqArguments)
    except msgspec.ValidationError as error:
        known = ", ".join(Seq2SeqArguments.__struct_fields__)
        raise SpecError(
            f"engine_args {settings.engine_args} do not fit the seq2seq engine: {error}; it knows {known}"
        ) from error
    if device not in ("cpu", "cuda"):
        raise SpecError(f"the seq2seq engine runs on the devices CPU and CUDA, not on {settings.device!r}")
    for name, least in (("lanes", 0), ("batch_size", 1), ("beam_size", 1), ("no_repeat_ngram_size", 0)):
        if not least <= getattr(arguments, name) <= _MOST:
            raise SpecError(f"engine_args {name} must be in [{least}, {_MOST}], got {getattr(arguments, name)}")
    kind = arguments.compute_type or ("float16" if device == "cuda" else "int8")
    can = sorted(ctranslate2.get_supported_compute_types(device))
    if kind not in can:
        raise SpecError(f"engine_args compute_type {kind!r} is not possible on this {device}: it can {', '.join(can)}")
    return msgspec.structs.replace(arguments, compute_type=kind)


def with_lanes(arguments: Seq2SeqArguments, files: ModelFiles, num_threads: int) -> Seq2SeqArguments:
    """The arguments with lanes chosen. Pure. A small model's matrices are too small to be worth sharing out."""
    if arguments.lanes:
        return arguments
    is_small = files.info.num_parameters < _SMALL_PARAMETERS
    return msgspec.structs.replace(arguments, lanes=min(max(num_threads, 2), _MOST_LANES) if is_small else 2)


def engine_info(files: ModelFiles, settings: EngineSettings, arguments: Seq2SeqArguments) -> EngineInfo:
    """The facts that follow from model and settings. T5 has no longest text, so max_model_len may be raised."""
    max_model_len = settings.max_model_len or files.info.max_model_len
    max_num_seqs = settings.max_num_seqs or DEFAULT_MAX_NUM_SEQS
    without = {EngineFeature.LOGPROBS} if arguments.beam_size > 1 else set()
    return EngineInfo(
        name="seq2seq",
        version=ctranslate2.__version__,
        device=settings.device,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        features=FEATURES - without,
        kv_cache_tokens=max_num_seqs * max_model_len,
    )
