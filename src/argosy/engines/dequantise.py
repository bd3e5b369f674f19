"""A GGUF model as a Hugging Face folder of bf16 safetensors: the same weights for tools that read no GGUF.

Quantised weights become the bf16 nearest to what they stand for, so what serves the folder answers as the GGUF does,
up to rounding. Byte-level BPE vocabularies (Llama 3, Qwen, SmolLM) are rebuilt here, because the pre-tokenizer that
GGUF names decides how digits are cut and transformers' own reader does not look at it; others are left to that reader.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

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


def dequantise(source: Path, target: Path) -> None:
    """Write the model of the GGUF file `source` into the new folder `target`."""
    metadata = dict(read_gguf(source).metadata)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32, trust_remote_code=False, local_files_only=True
    )
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    ends = {key: metadata.get(f"tokenizer.ggml.{name}_token_id") for key, name in _GENERATION_IDS.items()}
    model.generation_config = GenerationConfig(**{key: value for key, value in ends.items() if value is not None})
    model.save_pretrained(target)
    keep_old_readers(target / "config.json")
    write_tokenizer(source, metadata, target, model.config.max_position_embeddings)


def write_tokenizer(source: Path, metadata: dict[str, Any], target: Path, max_length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    if metadata.get("tokenizer.ggml.model") != "gpt2":
        AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True).save_pretrained(
            target
        )
        return
    build_tokenizer(metadata).save(str(target / "tokenizer.json"))
    config = tokenizer_config(metadata, max_length)
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def keep_old_readers(path: Path) -> None:
    """Repeat what transformers 5 renamed under its old name: a reader of the old one would assume theta = 10,000."""
    config = json.loads(path.read_text())
    theta = config.get("rope_parameters", {}).get("rope_theta")
    if theta is not None:
        config["rope_theta"] = theta
    path.write_text(json.dumps(config, indent=2) + "\n")
