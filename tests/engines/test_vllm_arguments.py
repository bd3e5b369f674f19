"""What vLLM is told: tables, and no vLLM needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.core.engine import EngineFeature, EngineSettings
from argosy.core.errors import SpecError
from argosy.core.generation import TokenLogprob
from argosy.core.model import ModelFiles, ModelFormat, ModelInfo, ModelRef, ModelScheme
from argosy.core.sampling import Constraint, ConstraintKind, SamplingParams
from argosy.engines.vllm_arguments import (
    FEATURES,
    OWN_ARGUMENTS,
    constraint_arguments,
    engine_arguments,
    sampling_arguments,
    token_logprobs,
)

KNOWN = {*OWN_ARGUMENTS, "tensor_parallel_size", "enable_lora", "load_format", "scheduling_policy"}
INFO = ModelInfo(
    architecture="llama",
    num_layers=2,
    hidden_size=8,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    vocab_size=16,
    max_model_len=4096,
    dtype="bf16",
    num_parameters=1000,
    weight_bytes=2000,
)
FILES = ModelFiles(
    ref=ModelRef(scheme=ModelScheme.HF, location="org/model"),
    root=Path("/models/m"),
    format=ModelFormat.SAFETENSORS,
    weights=(Path("/models/m/model.safetensors"),),
    info=INFO,
    digest="sha256:" + "0" * 64,
)


def test_settings_become_vllms_arguments() -> None:
    settings = EngineSettings(
        max_model_len=99999,
        max_num_seqs=8,
        max_num_batched_tokens=512,
        kv_cache_bytes=2**30,
        enable_prefix_caching=False,
        engine_args={"tensor_parallel_size": 2},
    )
    assert engine_arguments(FILES, settings, KNOWN) == {
        "model": "/models/m",
        "trust_remote_code": False,
        "max_model_len": 4096,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 512,
        "kv_cache_memory_bytes": 2**30,
        "enable_prefix_caching": False,
        "generation_config": "vllm",
        "load_format": "safetensors",
        "scheduling_policy": "priority",
        "disable_log_stats": False,
        "tensor_parallel_size": 2,
    }


def test_what_is_not_set_is_left_to_vllm() -> None:
    arguments = engine_arguments(FILES, EngineSettings(), KNOWN)
    assert not {"max_num_seqs", "max_num_batched_tokens", "kv_cache_memory_bytes"} & arguments.keys()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tensor_paralel_size": 2}, "tensor_paralel_size is no argument of this vLLM"),
        ({"trust_remote_code": True}, "code in a model's folder is never run"),  # D-11
        ({"model": "other/model"}, "named on the command line"),
        ({"max_model_len": 100}, "use max_model_len of the engine settings"),
    ],
)
def test_unknown_and_reserved_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        engine_arguments(FILES, EngineSettings(engine_args=arguments), KNOWN)


def test_threads_and_gguf_are_refused_with_the_remedy() -> None:
    with pytest.raises(SpecError, match="VLLM_CPU_OMP_THREADS_BIND"):
        engine_arguments(FILES, EngineSettings(num_threads=2), KNOWN)
    with pytest.raises(SpecError, match="use --engine openvino"):
        engine_arguments(msgspec.structs.replace(FILES, format=ModelFormat.GGUF), EngineSettings(), KNOWN)


def test_every_sampling_parameter_reaches_vllm_or_is_no_feature() -> None:
    told = sampling_arguments(SamplingParams(max_tokens=5))
    elsewhere = {"constraint", "prompt_logprobs"}
    assert set(SamplingParams.__struct_fields__) - set(told) == elsewhere
    assert EngineFeature.PROMPT_LOGPROBS not in FEATURES


def test_end_of_text_is_ours_and_empty_means_unset() -> None:
    told = sampling_arguments(SamplingParams(max_tokens=5, stop_token_ids=(2,), ignore_eos=False))
    assert told["ignore_eos"] is True
    assert told["stop_token_ids"] == [2]
    assert told["logit_bias"] is None
    assert told["allowed_token_ids"] is None
    assert told["detokenize"] is False


def test_a_constrained_answer_ends_at_vllms_own_end_of_text() -> None:
    """Else, with ignore_eos, the grammar would allow the end of text again and again until max_tokens."""
    constraint = Constraint(kind=ConstraintKind.JSON_OBJECT)
    assert sampling_arguments(SamplingParams(max_tokens=5, constraint=constraint))["ignore_eos"] is False


def test_min_tokens_hides_the_end_of_text_only_where_something_stops() -> None:
    assert sampling_arguments(SamplingParams(max_tokens=5, min_tokens=3, stop_token_ids=(2,)))["min_tokens"] == 3
    assert sampling_arguments(SamplingParams(max_tokens=5, min_tokens=3, ignore_eos=True))["min_tokens"] == 0


@pytest.mark.parametrize("kind", ConstraintKind)
def test_each_constraint_has_one_word(kind: ConstraintKind) -> None:
    told = constraint_arguments(Constraint(kind=kind, text="x", choices=("a", "b")))
    value = {"json_object": True, "choice": ["a", "b"]}.get(kind.value, "x")
    assert told == {kind.value.removesuffix("_schema"): value}


class Found:
    def __init__(self, logprob: float, rank: int) -> None:
        self.logprob = logprob
        self.rank = rank


def test_logprobs_come_likeliest_first_and_the_chosen_only_if_it_is_among_them() -> None:
    found = [{7: Found(-3.0, 5), 1: Found(-0.1, 1), 2: Found(-2.0, 2)}]
    expected = TokenLogprob(token_id=7, logprob=-3.0, top=((1, -0.1), (2, -2.0)))
    assert token_logprobs([7], found, 2) == (expected,)
    assert token_logprobs([7], found, 0) == (TokenLogprob(token_id=7, logprob=-3.0),)
    assert token_logprobs([7], None, 2) == ()
