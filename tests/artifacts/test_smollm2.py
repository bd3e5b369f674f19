"""The default model, pulled for real: the facts that everything else builds on."""

from __future__ import annotations

from argosy.artifacts.catalog import CATALOG
from argosy.artifacts.durable import sha256_of
from argosy.core.model import ModelFiles, ModelFormat


def test_default_model_is_the_pinned_file_with_known_facts(smollm2_files: ModelFiles) -> None:
    (weights,) = smollm2_files.weights
    assert sha256_of(weights) == CATALOG["smollm2"].sha256
    assert smollm2_files.format is ModelFormat.GGUF
    info = smollm2_files.info
    assert (info.architecture, info.num_layers, info.hidden_size) == ("llama", 30, 576)
    assert (info.num_heads, info.num_kv_heads, info.head_dim) == (9, 3, 64)
    assert (info.vocab_size, info.max_model_len, info.dtype) == (49152, 8192, "q4_1")
    assert info.num_parameters == 134_515_008


def test_a_request_that_leaves_sampling_out_gets_what_the_models_card_recommends(smollm2_files: ModelFiles) -> None:
    defaults = smollm2_files.info.sampling_defaults
    assert (defaults.temperature, defaults.top_p, defaults.top_k) == (0.2, 0.9, None)
