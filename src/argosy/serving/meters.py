"""The metrics of one served model, bound once, so that a token costs additions and no look-up."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Iterable

from argosy.core.engine import EngineInfo, EngineStats
from argosy.observe.metrics import Counter, Gauge, Histogram, Metrics
from argosy.observe.replica_metrics import FINISHED_REASONS, REJECTION_REASONS
from argosy.serving.delta import Usage
from argosy.serving.options import PreparedRequest
from argosy.serving.timings import Timings

_ENGINE = "0"  # vLLM's `engine` label: the index of the engine behind one server. We run one.


class ModelMeters:
    """Cells of one served model. Label values known beforehand exist, at 0, before the first request."""

    def __init__(self, metrics: Metrics, model_name: str) -> None:
        self.model_name = model_name
        self._metrics = metrics
        self._labels = (model_name, _ENGINE)
        self.prompt_tokens = self._counter("prompt_tokens")
        self.generation_tokens = self._counter("generation_tokens")
        self.adapters_waiting: Counts[str] = Counts()
        self.adapters_running: Counts[str] = Counts()
        self.inter_token_latency = self._histogram("inter_token_latency_seconds")
        self._cached_tokens = self._counter("prompt_tokens_cached")
        self._finished = {
            reason: metrics.counter("vllm:request_success", model_name, _ENGINE, reason) for reason in FINISHED_REASONS
        }
        self._rejected = {
            reason: metrics.counter("vllm:admission_rejections", model_name, reason) for reason in REJECTION_REASONS
        }
        self._first_token = self._histogram("time_to_first_token_seconds")
        self._per_token = self._histogram("request_time_per_output_token_seconds")
        self._total = self._histogram("e2e_request_latency_seconds")
        self._queue = self._histogram("request_queue_time_seconds")
        self._prefill = self._histogram("request_prefill_time_seconds")
        self._decode = self._histogram("request_decode_time_seconds")
        self._inference = self._histogram("request_inference_time_seconds")
        self._prompt_size = self._histogram("request_prompt_tokens")
        self._answer_size = self._histogram("request_generation_tokens")
        self._params_n = self._histogram("request_params_n")
        self._params_max_tokens = self._histogram("request_params_max_tokens")
        self._running = self._gauge("num_requests_running")
        self._waiting = self._gauge("num_requests_waiting")
        self._kv_usage = self._gauge("kv_cache_usage_perc")
        self._preemptions = self._counter("num_preemptions")
        self._cache_queries = self._counter("prefix_cache_queries")
        self._cache_hits = self._counter("prefix_cache_hits")

    def refused(self, reason: str) -> None:
        """A request was refused before it ran."""
        self._rejected[reason].add()

    def describe(self, info: EngineInfo) -> None:
        """Publish how the KV cache is set up."""
        sizes = (str(info.kv_cache_tokens), str(info.max_model_len), str(info.max_num_seqs))
        self._metrics.gauge("vllm:cache_config_info", *self._labels, *sizes).set(1)

    def sample_adapters(self, held: int) -> None:
        """Publish whose requests run and wait; routers prefer a replica that runs an adapter already.

        held: adapters loaded. Nothing is published without any. Source: vLLM, `LoRAStats`; the value is a unix time.
        """
        if held:
            running, waiting = (_busy(load) for load in (self.adapters_running, self.adapters_waiting))
            self._metrics.clear("vllm:lora_requests_info")
            self._metrics.gauge("vllm:lora_requests_info", str(held), waiting, running).set(time.time())

    def sample(self, stats: EngineStats, waiting_outside: int) -> None:
        """Publish the load now. waiting_outside: requests that wait for a permit, before the engine."""
        self._running.set(stats.num_requests_running)
        self._waiting.set(stats.num_requests_waiting + waiting_outside)
        self._kv_usage.set(stats.kv_cache_usage_ratio)
        self._preemptions.value = stats.num_preemptions
        self._cache_queries.value = stats.prefix_cache_query_tokens
        self._cache_hits.value = stats.prefix_cache_hit_tokens

    def record(self, prepared: PreparedRequest, usage: Usage, timings: Timings, reasons: Iterable[str]) -> None:
        """Count one request that has ended, whichever way."""
        for reason in reasons:
            self._finished[reason].add()
        self._cached_tokens.add(usage.cached_tokens)
        self._prompt_size.observe(usage.prompt_tokens)
        self._answer_size.observe(usage.completion_tokens)
        self._params_n.observe(len(prepared.requests))
        self._params_max_tokens.observe(prepared.max_tokens)
        decode = timings.decode_seconds
        for histogram, seconds in (
            (self._first_token, timings.first_token_seconds),
            (self._total, timings.total_seconds),
            (self._queue, timings.queue_seconds),
            (self._prefill, timings.prefill_seconds),
            (self._decode, decode),
            (self._inference, timings.inference_seconds),
        ):
            if seconds is not None:
                histogram.observe(seconds)
        later_tokens = usage.completion_tokens / len(prepared.requests) - 1
        if decode is not None and later_tokens > 0:
            self._per_token.observe(decode / later_tokens)

    def _counter(self, name: str) -> Counter:
        return self._metrics.counter(f"vllm:{name}", *self._labels)

    def _gauge(self, name: str) -> Gauge:
        return self._metrics.gauge(f"vllm:{name}", *self._labels)

    def _histogram(self, name: str) -> Histogram:
        return self._metrics.histogram(f"vllm:{name}", *self._labels)


def _busy(load: Counts[str]) -> str:
    """The names with requests; the model itself, without an adapter, has the name ""."""
    return ",".join(sorted(name for name, count in load.items() if name and count))
