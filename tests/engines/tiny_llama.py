"""A Llama of two layers and 64 tokens with random weights: real code paths in milliseconds. Needs torch."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from argosy.core.model import ModelFiles, ModelFormat, ModelInfo, ModelRef, ModelScheme

END = 2
MAX_MODEL_LEN = 256


def write_tiny_llama(directory: Path, vocab_size: int = 64, max_model_len: int = MAX_MODEL_LEN) -> ModelFiles:
    """Make the model in `directory`, the same every time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_model_len,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=END,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    info = ModelInfo(
        architecture="llama",
        num_layers=2,
        hidden_size=32,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        vocab_size=vocab_size,
        max_model_len=max_model_len,
        dtype="f32",
        num_parameters=25_000,
        weight_bytes=100_000,
    )
    return ModelFiles(
        ref=ModelRef(scheme=ModelScheme.FILE, location="tiny-llama"),
        root=directory,
        format=ModelFormat.SAFETENSORS,
        weights=(directory / "model.safetensors",),
        info=info,
        digest="sha256:" + "5" * 64,
    )
