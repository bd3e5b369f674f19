"""T5, Flan-T5, mT5 and UMT5 as a CTranslate2 specification: which tensor of the checkpoint goes where.

Tokens are named by their ids ("0", "1", …): the engine is given ids and gives ids, so the words never matter here.
Source: ctranslate2.converters.transformers.T5Loader, which does the same with torch; T5Config of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from ctranslate2.specs import Activation, TransformerSpec
from ctranslate2.specs.common_spec import LinearSpec

from argosy.core.errors import SpecError
from argosy.engines.seq2seq.weights import Checkpoint, Weight

ARCHITECTURES = frozenset({"t5", "mt5", "umt5"})
# The activation of the feed-forward network. Source: _SUPPORTED_ACTIVATIONS of ctranslate2.converters.transformers.
_ACTIVATIONS = {
    "relu": Activation.RELU,
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELUTanh,
    "gelu_pytorch_tanh": Activation.GELUTanh,
    "silu": Activation.SWISH,
    "swish": Activation.SWISH,
}


class T5Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a T5's config.json that its weights need. The defaults are T5Config's."""

    model_type: str = "t5"
    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int | None = None

    @property
    def decoder_layers(self) -> int:
        """As many as the encoder has, unless it says otherwise."""
        return self.num_decoder_layers or self.num_layers

    @property
    def is_gated(self) -> bool:
        """T5 1.1's feed-forward network with two inputs."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> str:
        """`gated-gelu` has always meant the tanh form. Source: T5Config.__init__."""
        name = self.feed_forward_proj.removeprefix("gated-")
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else name


def t5_shape(config: Mapping[str, Any]) -> T5Shape:
    """The shape in a config.json. Raises: SpecError naming the field."""
    try:
        shape = msgspec.convert(dict(config), T5Shape)
    except msgspec.ValidationError as error:
        raise SpecError(f"config.json is not a T5's: {error}; fetch the model again") from error
    if shape.activation not in _ACTIVATIONS:
        raise SpecError(
            f"config.json: 'feed_forward_proj' is {shape.feed_forward_proj!r}; CTranslate2 knows "
            f"{', '.join(_ACTIVATIONS)}, each also gated: serve it with --engine transformers"
        )
    if abs(shape.layer_norm_epsilon - 1e-6) > 1e-9:
        raise SpecError(
            f"config.json: 'layer_norm_epsilon' is {shape.layer_norm_epsilon:g}, and CTranslate2 computes with 1e-06"
        )
    return shape


def t5_spec(shape: T5Shape, checkpoint: Checkpoint) -> TransformerSpec:
    """The specification with its weights set. Raises: SpecError if a tensor is missing or has another shape."""
    spec = TransformerSpec.from_config(
        (shape.num_layers, shape.decoder_layers),
        shape.num_heads,
        pre_norm=True,
        activation=_ACTIVATIONS[shape.activation],
        ffn_glu=shape.is_gated,
        relative_attention_bias=True,
        rms_norm=True,
    )
    reader = _StackReader(shape, checkpoint)
    reader.fill(spec.encoder, "encoder", is_decoder=False)
    reader.fill(spec.decoder, "decoder", is_decoder=True)
    spec.decoder.projection.weight = reader.output_embedding()
    if shape.tie_word_embeddings if shape.scale_decoder_outputs is None else shape.scale_decoder_outputs:
        spec.decoder.scale_outputs = shape.d_model**-0.5
    names = [str(token_id) for token_id in range(shape.vocab_size)]
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    start = shape.pad_token_id if shape.decoder_start_token_id is None else shape.decoder_start_token_id
    spec.config.bos_token = spec.config.unk_token = str(shape.pad_token_id)
    spec.config.eos_token = str(shape.eos_token_id)
    spec.config.decoder_start_token = str(start)
    return spec


class _StackReader:
    """Fills the encoder or the decoder of a specification from the checkpoint."""

    def __init__(self, shape: T5Shape, checkpoint: Checkpoint) -> None:
        self._shape = shape
        self._checkpoint = checkpoint

    def fill(self, stack: Any, name: str, *, is_decoder: bool) -> None:
        shape = self._shape
        embeddings = stack.embeddings[0] if isinstance(stack.embeddings, list) else stack.embeddings
        embeddings.weight = self._input_embedding(name)
        stack.scale_embeddings = False
        stack.layer_norm.gamma = self._weight(f"{name}.final_layer_norm.weight", shape.d_model)
        bias = self._position_bias(f"{name}.block.0.layer")
        for index, layer in enumerate(stack.layer):
            block = f"{name}.block.{index}.layer"
            bias = self._position_bias(block) if shape.model_type == "umt5" else bias
            self._attention(layer.self_attention, f"{block}.0", "SelfAttention")
            layer.self_attention.relative_attention_bias = bias
            layer.self_attention.relative_attention_max_distance = np.int32(shape.relative_attention_max_distance)
            if is_decoder:
                self._attention(layer.attention, f"{block}.1", "EncDecAttention")
            self._feed_forward(layer.ffn, f"{block}.{2 if is_decoder else 1}")

    def output_embedding(self) -> Weight:
        if self._shape.tie_word_embeddings or "lm_head.weight" not in self._checkpoint:
            return self._input_embedding("decoder")
        return self._weight("lm_head.weight", self._shape.vocab_size, self._shape.d_model)

    def _input_embedding(self, stack: str) -> Weight:
        """Both stacks read the same one; a file may hold it once, or once more under a stack's name."""
        names = ("shared.weight", f"{stack}.embed_tokens.weight")
        found = next((name for name in names if name in self._checkpoint), names[0])
        return self._weight(found, self._shape.vocab_size, self._shape.d_model)

    def _position_bias(self, block: str) -> Weight:
        """What each head adds for each distance: the first layer's for all, in UMT5 each layer's own."""
        name = f"{block}.0.SelfAttention.relative_attention_bias.weight"
        return self._weight(name, self._shape.relative_attention_num_buckets, self._shape.num_heads)

    def _attention(self, attention: Any, layer: str, kind: str) -> None:
        inner = self._shape.num_heads * self._shape.d_kv
        q, k, v = (self._weight(f"{layer}.{kind}.{part}.weight", inner, self._shape.d_model) for part in "qkv")
        linears: list[LinearSpec] = attention.linear
        if kind == "SelfAttention":
            linears[0].weight = np.concatenate([q, k, v])
        else:
            linears[0].weight = q
            linears[1].weight = np.concatenate([k, v])
        linears[-1].weight = self._weight(f"{layer}.{kind}.o.weight", self._shape.d_model, inner)
        attention.queries_scale = 1.0
        attention.layer_norm.gamma = self._weight(f"{layer}.layer_norm.weight", self._shape.d_model)

    def _feed_forward(self, network: Any, layer: str) -> None:
        wide, narrow = self._shape.d_ff, self._shape.d_model
        dense = f"{layer}.DenseReluDense"
        if self._shape.is_gated:
            network.linear_0.weight = self._weight(f"{dense}.wi_0.weight", wide, narrow)
            network.linear_0_noact.weight = self._weight(f"{dense}.wi_1.weight", wide, narrow)
        else:
            network.linear_0.weight = self._weight(f"{dense}.wi.weight", wide, narrow)
        network.linear_1.weight = self._weight(f"{dense}.wo.weight", narrow, wide)
        network.layer_norm.gamma = self._weight(f"{layer}.layer_norm.weight", narrow)

    def _weight(self, name: str, *shape: int) -> Weight:
        return self._checkpoint.weight(name, shape)
