"""A GGUF model as a Hugging Face folder of bf16 safetensors: the same weights for tools that read no GGUF.

Quantised weights become the bf16 nearest to what they stand for, so what serves the folder answers as the GGUF does,
up to rounding. Byte-level BPE vocabularies (Llama 3, Qwen, SmolLM) are rebuilt here, because the pre-tokenizer that
GGUF names decides how digits are cut and transformers' own reader does not look at it. Others cannot be rebuilt exactly
(transformers' own reader makes one of Gemma's that cuts text differently) and are refused where one is asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GenerationConfig

from argosy.core.errors import SpecError
from argosy.core.gguf import read_gguf

_GENERATION_IDS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
CONTROL_TOKEN = 3  # Source: llama.cpp, enum llama_token_type: 3 = control.

# Source: the `pre_tokenizer` of tokenizer.json in Qwen/Qwen2.5-0.5B and meta-llama/Llama-3.2-1B.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLIT_PATTERNS = {
    "qwen2": _CONTRACTIONS + r"\p{N}" + _TAIL,
    "llama-bpe": _CONTRACTIONS + r"\p{N}{1,3}" + _TAIL,
}


def pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer:
    """The rule that cuts text into words, by GGUF's name for it. Source: llama.cpp, llm_load_vocab."""
    if kind in {"smollm", "codeshell", "refact", "command-r"}:
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if kind in {"default", "gpt-2"}:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind not in SPLIT_PATTERNS:
        known = ", ".join(["smollm", "gpt-2", *SPLIT_PATTERNS])
        raise SpecError(f"tokenizer.ggml.pre is {kind!r}: known are {known}; use the model's own safetensors instead")
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERNS[kind]), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def build_tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    """The byte-level BPE tokenizer of GGUF metadata. Source: tokenizer.json as the families' publishers write it."""
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer(metadata.get("tokenizer.ggml.pre", "default"))
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def tokenizer_config(metadata: dict[str, Any], max_length: int) -> dict[str, Any]:
    """What tokenizer_config.json says beside tokenizer.json. Source: Hugging Face's file of the same name."""
    tokens = metadata["tokenizer.ggml.tokens"]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            config[f"{name}_token"] = tokens[index]
    if "tokenizer.chat_template" in metadata:
        config["chat_template"] = metadata["tokenizer.chat_template"]
    return config


def gguf_arguments(path: Path) -> dict[str, Any]:
    """What from_pretrained() is told to read a GGUF file into plain tensors.

    Since 5.19 transformers may keep the weights in their blocks and multiply with kernels it downloads: not here.
    """
    arguments: dict[str, Any] = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    if hasattr(transformers, "GgufConfig"):
        arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return arguments


def dequantise(source: Path, target: Path, *, with_tokenizer: bool = True) -> None:
    """Write the model of the GGUF file `source` into the new folder `target`.

    Raises: SpecError, before anything is written, for a vocabulary that cannot be rebuilt exactly.
    """
    metadata = dict(read_gguf(source).metadata)
    if with_tokenizer:
        require_byte_level(source, metadata)
    model = AutoModelForCausalLM.from_pretrained(
        **gguf_arguments(source), dtype=torch.float32, trust_remote_code=False, local_files_only=True
    )
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    ends = {key: metadata.get(f"tokenizer.ggml.{name}_token_id") for key, name in _GENERATION_IDS.items()}
    model.generation_config = GenerationConfig(**{key: value for key, value in ends.items() if value is not None})
    model.save_pretrained(target)
    keep_old_readers(target / "config.json")
    if with_tokenizer:
        build_tokenizer(metadata).save(str(target / "tokenizer.json"))
        config = tokenizer_config(metadata, model.config.max_position_embeddings)
        (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def require_byte_level(source: Path, metadata: dict[str, Any]) -> None:
    """Raises: SpecError unless the vocabulary is byte-level BPE, with a pre-tokenizer known here."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise SpecError(
            f"{source.name} has a vocabulary of the kind {kind!r}, and only byte-level BPE ('gpt2') is rebuilt: "
            "use the model's own safetensors folder instead"
        )
    pre_tokenizer(metadata.get("tokenizer.ggml.pre", "default"))


def keep_old_readers(path: Path) -> None:
    """Repeat what transformers 5 renamed under its old name: a reader of the old one would assume theta = 10,000."""
    config = json.loads(path.read_text())
    theta = config.get("rope_parameters", {}).get("rope_theta")
    if theta is not None:
        config["rope_theta"] = theta
    path.write_text(json.dumps(config, indent=2) + "\n")
