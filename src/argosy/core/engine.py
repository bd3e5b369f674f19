"""What an engine says of itself: once (`EngineInfo`) and at any moment (`EngineStats`)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec


class EngineFeature(StrEnum):
    """Something a request may ask and an engine may lack. A lacking one is refused by name, never ignored."""

    SAMPLING = "sampling"
    SEED = "seed"
    TOP_P = "top_p"
    TOP_K = "top_k"
    MIN_P = "min_p"
    PRESENCE_PENALTY = "presence_penalty"
    FREQUENCY_PENALTY = "frequency_penalty"
    REPETITION_PENALTY = "repetition_penalty"
    MIN_TOKENS = "min_tokens"
    IGNORE_EOS = "ignore_eos"
    STOP_TOKEN_IDS = "stop_token_ids"
    LOGPROBS = "logprobs"
    TOP_LOGPROBS = "top_logprobs"
    PROMPT_LOGPROBS = "prompt_logprobs"
    LOGIT_BIAS = "logit_bias"
    ALLOWED_TOKEN_IDS = "allowed_token_ids"
    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"
    ADAPTERS = "adapters"
    PREFIX_CACHE = "prefix_cache"


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a started engine.

    max_model_len: prompt and answer tokens of one request together.
    max_num_seqs: sequences that may run in one step; more wait inside the engine.
    kv_cache_tokens: tokens the KV cache holds, over all requests.
    """

    name: str
    version: str
    device: str
    max_model_len: int
    max_num_seqs: int
    features: frozenset[EngineFeature]
    kv_cache_tokens: int = 0


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """The load of an engine now. Source: names of the Gateway-API Model Server Protocol."""

    num_requests_running: int
    num_requests_waiting: int
    kv_cache_usage_ratio: float
    prefix_cache_query_tokens: int = 0
    prefix_cache_hit_tokens: int = 0
    num_preemptions: int = 0


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to run an engine. None = the engine's own choice for this machine and model.

    kv_cache_bytes: memory for the KV cache. num_threads: CPU threads of the forward pass.
    engine_args: options of one engine, passed through and refused by it if unknown.
    cache_dir: where the engine may keep what it derives from the weights (compiled graphs); None = nowhere.
    """

    device: str = "CPU"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_cache_bytes: int | None = None
    num_threads: int | None = None
    enable_prefix_caching: bool = True
    engine_args: dict[str, str | int | float | bool] = {}
    cache_dir: Path | None = None
