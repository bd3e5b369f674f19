"""A T5 of two layers with random weights, and a T5 in forty lines of numpy that says what it must answer.

The weights are drawn so that logits differ by much: an answer does not hang on the last digit of a sum.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from argosy.core.model import ModelFiles, ModelFormat, ModelInfo, ModelRef, ModelScheme

Array = npt.NDArray[np.float32]
END = 1
CONFIG: Mapping[str, Any] = {
    "model_type": "t5", "is_encoder_decoder": True, "vocab_size": 96, "d_model": 32, "d_kv": 16, "d_ff": 48,
    "num_layers": 2, "num_decoder_layers": 2, "num_heads": 3, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20, "feed_forward_proj": "relu", "tie_word_embeddings": True,
    "pad_token_id": 0, "eos_token_id": END, "decoder_start_token_id": 0,
}  # fmt: skip


def tensors_of(config: Mapping[str, Any], seed: int = 0) -> dict[str, Array]:
    """The checkpoint's tensors by their Hugging Face names."""
    rng = np.random.default_rng(seed)
    wide, inner, narrow = config["d_ff"], config["num_heads"] * config["d_kv"], config["d_model"]
    found: dict[str, Array] = {}

    def draw(name: str, *shape: int, scale: float | None = None) -> None:
        found[name] = (rng.normal(size=shape) * (scale or 1.6 * shape[-1] ** -0.5)).astype(np.float32)

    draw("shared.weight", config["vocab_size"], narrow, scale=1.5)
    if not config["tie_word_embeddings"]:
        draw("lm_head.weight", config["vocab_size"], narrow)
    for stack, layers in (("encoder", config["num_layers"]), ("decoder", config["num_decoder_layers"])):
        for index in range(layers):
            block = f"{stack}.block.{index}.layer"
            kinds = ["SelfAttention", "EncDecAttention"] if stack == "decoder" else ["SelfAttention"]
            for place, kind in enumerate(kinds):
                for part in "qkv":
                    draw(f"{block}.{place}.{kind}.{part}.weight", inner, narrow, scale=0.25)
                draw(f"{block}.{place}.{kind}.o.weight", narrow, inner)
            if index == 0 or config["model_type"] == "umt5":
                bias = f"{block}.0.SelfAttention.relative_attention_bias.weight"
                draw(bias, config["relative_attention_num_buckets"], config["num_heads"], scale=0.5)
            dense = f"{block}.{len(kinds)}.DenseReluDense"
            for name in ("wi_0", "wi_1") if config["feed_forward_proj"].startswith("gated") else ("wi",):
                draw(f"{dense}.{name}.weight", wide, narrow)
            draw(f"{dense}.wo.weight", narrow, wide)
            for place in range(len(kinds) + 1):
                found[f"{block}.{place}.layer_norm.weight"] = (1 + rng.normal(size=narrow) / 8).astype(np.float32)
        found[f"{stack}.final_layer_norm.weight"] = (1 + rng.normal(size=narrow) / 8).astype(np.float32)
    return found


def write_tiny_t5(
    root: Path, *, dtype: str = "F32", seed: int = 0, max_model_len: int = 256, **changes: Any
) -> ModelFiles:
    """Write the model and say what it is. dtype: how its weights are stored, F32 or BF16. changes: of CONFIG."""
    config = {**CONFIG, **changes}
    tensors = tensors_of(config, seed)
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text(json.dumps(config))
    (root / "model.safetensors").write_bytes(safetensors_bytes(tensors, dtype))
    info = ModelInfo(
        architecture=config["model_type"], num_layers=config["num_layers"], hidden_size=config["d_model"],
        num_heads=config["num_heads"], num_kv_heads=config["num_heads"], head_dim=config["d_kv"],
        vocab_size=config["vocab_size"], max_model_len=max_model_len, dtype="f32", num_parameters=50_000,
        weight_bytes=200_000, is_encoder_decoder=True,
    )  # fmt: skip
    ref = ModelRef(scheme=ModelScheme.FILE, location=str(root))
    digest = f"sha256:{seed:064x}"
    weights = (root / "model.safetensors",)
    return ModelFiles(ref=ref, root=root, format=ModelFormat.SAFETENSORS, weights=weights, info=info, digest=digest)


def safetensors_bytes(tensors: Mapping[str, Array], dtype: str = "F32") -> bytes:
    """The bytes of a safetensors file."""
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        stored = tensor.tobytes() if dtype == "F32" else (tensor.view(np.uint32) >> 16).astype("<u2").tobytes()
        place = [len(data), len(data) + len(stored)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": place}
        data += stored
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class NaiveT5:
    """T5 as its paper says it, one token at a time, everything anew for each. Shapes: S source, T target, D model."""

    def __init__(self, tensors: Mapping[str, Array], config: Mapping[str, Any]) -> None:
        self.tensors = tensors
        self.config = config

    def greedy(self, prompt: tuple[int, ...], num_tokens: int) -> list[int]:
        """The likeliest next token, `num_tokens` times, whatever it is."""
        memory_SD = self.stack("encoder", list(prompt), None)
        ids = [self.config["decoder_start_token_id"]]
        for _ in range(num_tokens):
            hidden_D = self.stack("decoder", ids, memory_SD)[-1]
            tied = self.config["tie_word_embeddings"]
            table = self.tensors["shared.weight" if tied else "lm_head.weight"]
            logits = table @ hidden_D * (self.config["d_model"] ** -0.5 if tied else 1)
            logits[END] = -np.inf  # as an engine that no stop token was given to
            ids.append(int(logits.argmax()))
        return ids[1:]

    def stack(self, name: str, ids: list[int], memory_SD: Array | None) -> Array:
        x_TD = self.tensors["shared.weight"][ids]
        own = self.config["model_type"] == "umt5"
        for index in range(self.config["num_layers" if memory_SD is None else "num_decoder_layers"]):
            block = f"{name}.block.{index}.layer"
            bias = self.positions(name, index if own else 0, len(ids))
            y_TD = self.norm(x_TD, f"{block}.0.layer_norm.weight")
            x_TD = x_TD + self.attention(y_TD, y_TD, f"{block}.0.SelfAttention", bias)
            if memory_SD is not None:
                y_TD = self.norm(x_TD, f"{block}.1.layer_norm.weight")
                x_TD = x_TD + self.attention(y_TD, memory_SD, f"{block}.1.EncDecAttention", np.float32(0))
            last = 1 if memory_SD is None else 2
            y_TD = self.norm(x_TD, f"{block}.{last}.layer_norm.weight")
            x_TD = x_TD + self.feed_forward(y_TD, f"{block}.{last}.DenseReluDense")
        return self.norm(x_TD, f"{name}.final_layer_norm.weight")

    def norm(self, x_TD: Array, gamma: str) -> Array:
        return np.asarray(x_TD / np.sqrt((x_TD**2).mean(-1, keepdims=True) + 1e-6) * self.tensors[gamma], np.float32)

    def attention(self, x_TD: Array, seen_SD: Array, name: str, bias: Any) -> Array:
        heads = self.config["num_heads"]
        q, k, v = (
            (side @ self.tensors[f"{name}.{part}.weight"].T).reshape(len(side), heads, -1).swapaxes(0, 1)
            for part, side in (("q", x_TD), ("k", seen_SD), ("v", seen_SD))
        )
        scores = q @ k.swapaxes(1, 2) + bias
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (chances / chances.sum(-1, keepdims=True)) @ v
        return np.asarray(mixed.swapaxes(0, 1).reshape(len(x_TD), -1) @ self.tensors[f"{name}.o.weight"].T, np.float32)

    def feed_forward(self, x_TD: Array, name: str) -> Array:
        if f"{name}.wi.weight" in self.tensors:
            inner = np.maximum(x_TD @ self.tensors[f"{name}.wi.weight"].T, 0)
        else:
            gate = x_TD @ self.tensors[f"{name}.wi_0.weight"].T
            gate = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
            inner = gate * (x_TD @ self.tensors[f"{name}.wi_1.weight"].T)
        return np.asarray(inner @ self.tensors[f"{name}.wo.weight"].T, np.float32)

    def positions(self, name: str, layer: int, length: int) -> Array:
        """The bias of each head for each distance; a decoder sees nothing behind itself."""
        distance = np.arange(length)[None] - np.arange(length)[:, None]
        table = self.tensors[f"{name}.block.{layer}.layer.0.SelfAttention.relative_attention_bias.weight"]
        both_ways = name == "encoder"
        buckets = len(table) // (2 if both_ways else 1)
        offset = np.where(distance > 0, buckets, 0) if both_ways else 0
        near = np.abs(distance) if both_ways else np.maximum(-distance, 0)
        exact = buckets // 2
        ratio = np.log(np.maximum(near, 1) / exact) / np.log(self.config["relative_attention_max_distance"] / exact)
        far = np.minimum(exact + (ratio * (buckets - exact)).astype(int), buckets - 1)
        bias = table[offset + np.where(near < exact, near, far)].transpose(2, 0, 1)
        return bias if both_ways else np.where(distance > 0, np.float32(-1e9), bias)
