"""A prepared model and settings become a running pipeline. Runs in the child; imports OpenVINO."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import openvino
import openvino_genai

from argosy.engines.openvino import sizing
from argosy.engines.openvino.messages import Load
from argosy.engines.openvino.toy import write_toy_gguf
from argosy.engines.openvino.vocabulary import no_tokenizer

# Tokens in one block of OpenVINO's paged KV cache on CPUs. Source: openvino.genai, cache manager.
KV_BLOCK_TOKENS = 32


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline knows of text: enough for constraints, or nothing (eos_token_id is None)."""

    tokenizer: Any
    size: int
    eos_token_id: int | None


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline ready to step, and what its start consisted of (seconds)."""

    pipeline: Any
    kv_cache_tokens: int
    max_num_seqs: int
    eos_token_id: int | None
    phases: dict[str, float]


def load_pipeline(load: Load) -> Loaded:
    """Read, compile and allocate. Raises: RuntimeError from OpenVINO, whose text names the cause."""
    began = time.perf_counter()
    vocabulary = _vocabulary(load.vocabulary_path)
    spelled = time.perf_counter()
    scheduler = _scheduler_config(load)
    if load.is_checker:
        pipeline = _toy_pipeline(vocabulary, scheduler)
    else:
        pipeline = openvino_genai.ContinuousBatchingPipeline(
            load.model_path, vocabulary.tokenizer, scheduler, load.settings.device, **properties(load)
        )
    return Loaded(
        pipeline=pipeline,
        kv_cache_tokens=scheduler.num_kv_blocks * KV_BLOCK_TOKENS,
        max_num_seqs=scheduler.max_num_seqs,
        eos_token_id=vocabulary.eos_token_id,
        phases={"vocabulary": spelled - began, "weights": time.perf_counter() - spelled},
    )


def _vocabulary(directory: str) -> Vocabulary:
    if not directory:
        return Vocabulary(tokenizer=no_tokenizer(), size=0, eos_token_id=None)
    tokenizer = openvino_genai.Tokenizer(directory)
    size = len(tokenizer.get_vocab())
    eos = int(tokenizer.get_eos_token_id())
    return Vocabulary(tokenizer=tokenizer, size=size, eos_token_id=eos if size and eos >= 0 else None)


def _toy_pipeline(vocabulary: Vocabulary, scheduler: Any) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "toy.gguf"
        write_toy_gguf(path, vocabulary.size)
        return openvino_genai.ContinuousBatchingPipeline(
            str(path), vocabulary.tokenizer, scheduler, "CPU", INFERENCE_NUM_THREADS=1
        )


def _scheduler_config(load: Load) -> Any:
    """How the batch is formed."""
    settings = load.settings
    config = openvino_genai.SchedulerConfig()
    config.num_kv_blocks = max(load.kv_cache_tokens // KV_BLOCK_TOKENS, 1)
    config.max_num_seqs = settings.max_num_seqs or sizing.DEFAULT_MAX_NUM_SEQS
    config.max_num_batched_tokens = settings.max_num_batched_tokens or sizing.DEFAULT_MAX_NUM_BATCHED_TOKENS
    config.enable_prefix_caching = settings.enable_prefix_caching
    config.dynamic_split_fuse = True
    return config


def properties(load: Load) -> dict[str, Any]:
    """What OpenVINO is told when it compiles the model."""
    chosen: dict[str, Any] = {}
    if load.settings.num_threads:
        chosen["INFERENCE_NUM_THREADS"] = load.settings.num_threads
    for name, value in load.settings.engine_args.items():
        chosen[sizing.PROPERTIES[name]] = str(value)
    return chosen


def version() -> str:
    """OpenVINO GenAI's version, as it names itself."""
    return str(openvino_genai.__version__)


def tensor(ids: Any) -> Any:
    """A tensor over a numpy array."""
    return openvino.Tensor(ids)
