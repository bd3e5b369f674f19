"""Facts of a model from its GGUF head: `ModelInfo`, checked against limits and against the tensors themselves.

Source: key names of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md ("LLM" section) and, for sampling
defaults, llama.cpp's `general.sampling.*`.
"""

from __future__ import annotations

from collections import Counter

from argosy.artifacts.limits import ModelFacts, checked_info
from argosy.core.gguf import GgufFile
from argosy.core.model import ModelInfo
from argosy.core.sampling import SamplingOverrides

_SAMPLING_KEYS = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}


def gguf_info(file: GgufFile) -> ModelInfo:
    """The facts a GGUF file states.

    Raises: SpecError naming the key that is missing, absurd or contradicted by a tensor.
    """
    split = file.integer("split.count")
    if split is not None and split > 1:
        raise file.wrong("split.count", split, "models split over several GGUF files must be merged first (gguf-split)")
    architecture = file.text("general.architecture")
    if not architecture:
        raise file.wrong("general.architecture", architecture, "must name the model family")
    hidden_size = _required(file, f"{architecture}.embedding_length")
    num_heads = _widest(file, f"{architecture}.attention.head_count")
    num_kv_heads = _widest(file, f"{architecture}.attention.head_count_kv", num_heads)
    head_dim = file.integer(f"{architecture}.attention.key_length", hidden_size // max(num_heads, 1))
    tokens = file.strings("tokenizer.ggml.tokens") or ()
    facts = ModelFacts(
        source=file.path.name,
        architecture=architecture,
        num_layers=_required(file, f"{architecture}.block_count"),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim or 0,
        vocab_size=file.integer(f"{architecture}.vocab_size") or len(tokens),
        max_model_len=_required(file, f"{architecture}.context_length"),
    )
    info = checked_info(
        facts,
        dtype=_usual_type(file),
        num_parameters=sum(tensor.num_elements for tensor in file.tensors),
        weight_bytes=file.file_bytes,
        is_encoder_decoder=architecture in ("t5", "t5encoder"),
        sampling_defaults=_sampling_defaults(file),
    )
    _check_tensors(file, info)
    return info


def _required(file: GgufFile, key: str) -> int:
    value = file.integer(key)
    if value is None:
        raise file.wrong(key, "missing", "every language model states it")
    return value


def _widest(file: GgufFile, key: str, default: int | None = None) -> int:
    """An integer, or the largest of an array with one per layer (models with unlike layers)."""
    value = file.metadata.get(key)
    if isinstance(value, tuple) and value:
        largest = max(value)
        if isinstance(largest, int):
            return largest
    if value is None and default is not None:
        return default
    return _required(file, key)


def _usual_type(file: GgufFile) -> str:
    elements: Counter[str] = Counter()
    for tensor in file.tensors:
        elements[tensor.type] += tensor.num_elements
    if not elements:
        raise file.wrong("tensor_count", 0, "a model has weights")
    return elements.most_common(1)[0][0]


def _check_tensors(file: GgufFile, info: ModelInfo) -> None:
    """The numbers that sized the network must be the ones its tensors have: loaders trust them unseen (D-07)."""
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    embedding = shapes.get("token_embd.weight")
    if embedding is None:
        raise file.wrong("token_embd.weight", "missing", "every language model has this tensor")
    expected = (info.hidden_size, info.vocab_size)
    if embedding != expected:
        raise file.wrong("token_embd.weight", embedding, f"metadata says the shape is {expected}")
    layers = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
    if layers and layers != {str(index) for index in range(info.num_layers)}:
        raise file.wrong(f"{info.architecture}.block_count", info.num_layers, f"the file has {len(layers)} layers")


def _sampling_defaults(file: GgufFile) -> SamplingOverrides:
    found: dict[str, int | float] = {}
    for field, key in _SAMPLING_KEYS.items():
        value = file.number(key)
        if value is not None:
            found[field] = int(value) if field == "top_k" else value
    return SamplingOverrides(**found)  # type: ignore[arg-type]  # names and types match; ranges: checked_info
