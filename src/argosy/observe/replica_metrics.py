"""The metrics of one server: of a replica's engine and queue in vLLM's names, and of any HTTP server of ours.

Source: names and buckets, vLLM 0.32 `vllm/v1/metrics`; http_* as prometheus-fastapi-instrumentator writes them.
"""

from __future__ import annotations

from argosy.observe.metric import Metric, counter, gauge, histogram

FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
TOKEN_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
REQUEST_BUCKETS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
COUNT_BUCKETS = (
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0,
    100000.0,
)  # fmt: skip
ANSWER_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0)
HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition", "tool_calls")
REJECTION_REASONS = ("queue_full", "queue_timeout", "deadline")


_MODEL = ("model_name", "engine")


def _counter(name: str, unit: str, help_: str, labels: tuple[str, ...] = _MODEL) -> Metric:
    return counter(name, unit, help_, labels)


def _gauge(name: str, unit: str, help_: str, labels: tuple[str, ...] = _MODEL) -> Metric:
    return gauge(name, unit, help_, labels)


def _histogram(
    name: str, unit: str, help_: str, buckets: tuple[float, ...], labels: tuple[str, ...] = _MODEL
) -> Metric:
    return histogram(name, unit, help_, buckets, labels)


REPLICA_METRICS: tuple[Metric, ...] = (
    _gauge("vllm:num_requests_running", "requests", "Sequences in the engine's batch now."),
    _gauge("vllm:num_requests_waiting", "requests", "Requests waiting: for a permit, or inside the engine."),
    _gauge("vllm:kv_cache_usage_perc", "ratio", "Share of the KV cache in use, 0 to 1."),
    _gauge(
        "vllm:lora_requests_info",
        "timestamp",
        "Adapters with running and with waiting requests; max_lora is how many are loaded.",
        ("max_lora", "waiting_lora_adapters", "running_lora_adapters"),
    ),
    _gauge(
        "vllm:cache_config_info",
        "constant 1",
        "How the KV cache is set up.",
        ("model_name", "engine", "kv_cache_tokens", "max_model_len", "max_num_seqs"),
    ),
    _counter("vllm:prompt_tokens", "tokens", "Prompt tokens of answered requests."),
    _counter("vllm:prompt_tokens_cached", "tokens", "Prompt tokens taken from the prefix cache."),
    _counter("vllm:generation_tokens", "tokens", "Generated tokens."),
    _counter(
        "vllm:request_success", "answers", "Answers by how they ended.", (*_MODEL, "finished_reason")
    ),
    _counter("vllm:num_preemptions", "preemptions", "Sequences pushed out of the KV cache and recomputed."),
    _counter("vllm:prefix_cache_queries", "tokens", "Prompt tokens looked up in the prefix cache."),
    _counter("vllm:prefix_cache_hits", "tokens", "Prompt tokens found in the prefix cache."),
    _counter(
        "vllm:admission_rejections", "requests", "Requests refused before they ran.", ("model_name", "reason")
    ),
    _histogram(
        "vllm:time_to_first_token_seconds", "seconds", "Arrival to first token.", FIRST_TOKEN_BUCKETS
    ),
    _histogram(
        "vllm:inter_token_latency_seconds", "seconds", "Gap between engine steps of a request.", TOKEN_BUCKETS
    ),
    _histogram(
        "vllm:request_time_per_output_token_seconds",
        "seconds",
        "Mean gap between tokens of a request.",
        TOKEN_BUCKETS,
    ),
    _histogram("vllm:e2e_request_latency_seconds", "seconds", "Arrival to end.", REQUEST_BUCKETS),
    _histogram("vllm:request_queue_time_seconds", "seconds", "Arrival to permit.", REQUEST_BUCKETS),
    _histogram("vllm:request_prefill_time_seconds", "seconds", "Permit to first token.", REQUEST_BUCKETS),
    _histogram("vllm:request_decode_time_seconds", "seconds", "First to last token.", REQUEST_BUCKETS),
    _histogram("vllm:request_inference_time_seconds", "seconds", "Permit to last token.", REQUEST_BUCKETS),
    _histogram("vllm:request_prompt_tokens", "tokens", "Prompt tokens of a request.", COUNT_BUCKETS),
    _histogram("vllm:request_generation_tokens", "tokens", "Generated tokens of a request.", COUNT_BUCKETS),
    _histogram("vllm:request_params_n", "answers", "Answers a request asked for.", ANSWER_BUCKETS),
    _histogram("vllm:request_params_max_tokens", "tokens", "max_tokens of a request.", COUNT_BUCKETS),
    _counter("http_requests", "requests", "HTTP responses.", ("handler", "method", "status")),
    _histogram(
        "http_request_duration_seconds",
        "seconds",
        "First byte in to last byte out.",
        HTTP_BUCKETS,
        ("handler", "method"),
    ),
    _gauge("argosy_http_requests_in_flight", "requests", "HTTP requests being answered now.", ()),
    _counter(
        "argosy_client_disconnects", "requests", "Requests whose client went away, or read too slowly.", ("reason",)
    ),
    _counter(
        "argosy_api_keys_reload_failures", "changes", "Changes of the API key file that could not be used.", ()
    ),
    _gauge("argosy_start_phase_seconds", "seconds", "How long each phase of the start took.", ("phase",)),
    _gauge("argosy_build_info", "constant 1", "The running version.", ("version",)),
)  # fmt: skip
