"""What Argosy says, in vLLM's words, as plain values: pure, and testable where no vLLM is installed.

Names are those of vLLM 0.32's AsyncEngineArgs, SamplingParams and StructuredOutputsParams.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from argosy.core.engine import EngineFeature, EngineSettings
from argosy.core.errors import SpecError
from argosy.core.generation import TokenLogprob
from argosy.core.model import ModelFiles, ModelFormat
from argosy.core.sampling import Constraint, SamplingParams

FEATURES = frozenset(EngineFeature) - {EngineFeature.PROMPT_LOGPROBS}
# What Argosy decides itself: from the model's files, from EngineSettings, or because its own contract hangs on it.
OWN_ARGUMENTS = {
    "model": "the model is named on the command line",
    "tokenizer": "the model's own is used",
    "trust_remote_code": "code in a model's folder is never run",
    "max_model_len": "use max_model_len of the engine settings",
    "max_num_seqs": "use max_num_seqs of the engine settings",
    "max_num_batched_tokens": "use max_num_batched_tokens of the engine settings",
    "kv_cache_memory_bytes": "use kv_cache_bytes of the engine settings",
    "enable_prefix_caching": "use enable_prefix_caching of the engine settings",
    "generation_config": "Argosy reads the model's defaults itself",
    "disable_log_stats": "Argosy's metrics need them",
}


def engine_arguments(files: ModelFiles, settings: EngineSettings, known: Collection[str]) -> dict[str, Any]:
    """The keyword arguments of AsyncEngineArgs. known: the names this vLLM has.

    Raises: SpecError for a GGUF file, for an argument vLLM does not have, and for one that Argosy decides.
    """
    if files.format is not ModelFormat.SAFETENSORS:
        raise SpecError(
            f"{files.ref} holds {files.format} weights and vLLM serves safetensors checkpoints: "
            "name the model's safetensors repository, or use --engine openvino"
        )
    _require_known(settings, known)
    arguments: dict[str, Any] = {
        "model": str(files.root),
        "trust_remote_code": False,
        "max_model_len": min(settings.max_model_len or files.info.max_model_len, files.info.max_model_len),
        "enable_prefix_caching": settings.enable_prefix_caching,
        "generation_config": "vllm",
        "load_format": "safetensors",
        "scheduling_policy": "priority",
        "disable_log_stats": False,
    }
    chosen = {
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "kv_cache_memory_bytes": settings.kv_cache_bytes,
    }
    arguments.update({name: value for name, value in chosen.items() if value is not None})
    return {**arguments, **settings.engine_args}


def _require_known(settings: EngineSettings, known: Collection[str]) -> None:
    for name in settings.engine_args:
        if name in OWN_ARGUMENTS:
            raise SpecError(f"engine_args {name} is not yours to set here: {OWN_ARGUMENTS[name]}")
        if name not in known:
            raise SpecError(
                f"engine_args {name} is no argument of this vLLM: see `vllm serve --help` "
                "(a dash there is an underscore here)"
            )
    if settings.num_threads is not None:
        raise SpecError(
            f"num_threads {settings.num_threads}: vLLM takes its threads from the environment "
            "variable VLLM_CPU_OMP_THREADS_BIND: set it, and leave num_threads unset"
        )


def sampling_arguments(params: SamplingParams) -> dict[str, Any]:
    """The keyword arguments of vLLM's SamplingParams, without constraint and output kind.

    The end of text is among stop_token_ids already if it shall end the answer, so vLLM's own notion is switched off,
    but for constraints: once the text has matched, their grammar allows nothing but vLLM's end of text, without end.
    vLLM hides its end of text from the first min_tokens even so (update_from_generation_config). Where no token stops
    the answer there is nothing to outlast, and min_tokens stays 0, so that ignore_eos hides nothing.
    """
    return {
        "max_tokens": params.max_tokens,
        "min_tokens": params.min_tokens if params.stop_token_ids else 0,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "repetition_penalty": params.repetition_penalty,
        "seed": params.seed,
        "ignore_eos": params.constraint is None,
        "stop_token_ids": list(params.stop_token_ids),
        "logprobs": params.logprobs,
        "logit_bias": dict(params.logit_bias) or None,
        "allowed_token_ids": list(params.allowed_token_ids) or None,
        "detokenize": False,
    }


def constraint_arguments(constraint: Constraint) -> dict[str, Any]:
    """The keyword arguments of vLLM's StructuredOutputsParams. Source: vllm/sampling_params.py."""
    values: Mapping[str, Any] = {
        "json_schema": {"json": constraint.text},
        "json_object": {"json_object": True},
        "regex": {"regex": constraint.text},
        "choice": {"choice": list(constraint.choices)},
        "grammar": {"grammar": constraint.text},
    }
    return dict(values[constraint.kind])


def token_logprobs(
    token_ids: Sequence[int], logprobs: Sequence[Mapping[int, Any]] | None, num_top: int | None
) -> tuple[TokenLogprob, ...]:
    """vLLM's maps of id to (logprob, rank), one a token, in our order: the likeliest first, at most `num_top`."""
    if logprobs is None or num_top is None:
        return ()
    return tuple(_token_logprob(token_id, found, num_top) for token_id, found in zip(token_ids, logprobs, strict=True))


def _token_logprob(token_id: int, found: Mapping[int, Any], num_top: int) -> TokenLogprob:
    likeliest = sorted(found.items(), key=lambda item: (item[1].rank, item[0]))[:num_top]
    return TokenLogprob(
        token_id=token_id,
        logprob=float(found[token_id].logprob),
        top=tuple((int(other), float(value.logprob)) for other, value in likeliest),
    )
