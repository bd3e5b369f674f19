"""Facts of a model from `config.json` and `generation_config.json`, held against its tensors.

Only the numbers are read. `auto_map` and the Python files it names (`trust_remote_code`) are never fetched, never
imported: the log says so once, and the model either is of a family the engines know or is refused by them (D-11).

Source: PretrainedConfig and GenerationConfig of Hugging Face Transformers, and the config.json of the Llama, Qwen 2
and 3, Gemma 2 and 3, Phi 3, Mistral and SmolLM families.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from argosy.artifacts.limits import ModelFacts, checked_info
from argosy.artifacts.safetensors import SafetensorsFile
from argosy.core.errors import SpecError
from argosy.core.model import ModelInfo
from argosy.core.sampling import SamplingOverrides

MAX_CONFIG_BYTES = 4 * 2**20
_logger = logging.getLogger(__name__)

# model_type of config.json -> the family as GGUF names it, where the two differ.
_FAMILIES = {
    "gemma3_text": "gemma3",
    "smollm3": "smollm3",
    "qwen2_5_vl_text": "qwen2",
    "phi": "phi2",
    "mixtral": "llama",
    "mistral": "mistral",
}
# The same fact under another family's word. Source: attribute_map of the T5, GPT-2 and MPT configurations.
_ALIASES = {
    "num_hidden_layers": ("num_layers", "n_layer"),
    "hidden_size": ("d_model", "n_embd"),
    "num_attention_heads": ("num_heads", "n_head"),
    "head_dim": ("d_kv",),
    "max_position_embeddings": ("n_positions", "max_sequence_length"),
}
_DEFAULT_POSITIONS = {"t5": 512, "mt5": 512}  # relative positions: the length they were trained with
_DTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_GENERATION_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def config_info(root: Path, headers: tuple[SafetensorsFile, ...], *, weight_bytes: int | None = None) -> ModelInfo:
    """The facts of the model in `root`. weight_bytes: of weights that are not safetensors.

    Raises: SpecError naming the field.
    """
    config = _Config(root / "config.json")
    if "auto_map" in config.table or config.table.get("trust_remote_code"):
        _logger.warning(
            "the model names Python code of its own (auto_map); it is ignored and never run",
            extra={"file": str(root / "config.json")},
        )
    model_type = config.text("model_type")
    text = config.nested("text_config")  # multimodal families keep the language model's numbers here
    hidden_size = text.integer("hidden_size")
    num_heads = text.integer("num_attention_heads")
    family = text.text("model_type", model_type)
    facts = ModelFacts(
        source="config.json",
        architecture=_FAMILIES.get(family, family),
        num_layers=text.integer("num_hidden_layers"),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=text.integer("num_key_value_heads", num_heads),
        head_dim=text.integer("head_dim", hidden_size // num_heads if num_heads > 0 else 0),
        vocab_size=text.integer("vocab_size"),
        max_model_len=text.integer("max_position_embeddings", _DEFAULT_POSITIONS.get(family)),
    )
    is_seq2seq = config.table.get("is_encoder_decoder") is True
    num_parameters = sum(tensor.num_elements for header in headers for tensor in header.tensors)
    info = checked_info(
        facts,
        dtype=_usual_dtype(headers) or text.dtype(),
        num_parameters=num_parameters,
        weight_bytes=sum(header.data_bytes for header in headers) if weight_bytes is None else weight_bytes,
        is_encoder_decoder=is_seq2seq,
        sampling_defaults=_sampling_defaults(root / "generation_config.json", is_seq2seq=is_seq2seq),
    )
    _check_embedding(headers, info)
    return info


class _Config:
    """A JSON object of numbers and texts, each fetched with its type checked."""

    def __init__(self, path: Path, table: dict[str, Any] | None = None, prefix: str = "") -> None:
        self.path = path
        self.prefix = prefix
        self.table = read_json_object(path) if table is None else table

    def nested(self, field: str) -> _Config:
        inner = self.table.get(field)
        return _Config(self.path, inner, f"{field}.") if isinstance(inner, dict) else self

    def integer(self, field: str, default: int | None = None) -> int:
        value = self.table.get(field)
        for alias in _ALIASES.get(field, ()):
            value = self.table.get(alias) if value is None else value
        value = default if value is None else value
        if type(value) is not int:
            self.wrong(field, "missing" if value is None else value, "must be an integer")
        return value

    def text(self, field: str, default: str | None = None) -> str:
        value = self.table.get(field, default)
        if not isinstance(value, str):
            self.wrong(field, "missing" if value is None else value, "must be a string")
        return value

    def dtype(self) -> str:
        named = self.table.get("torch_dtype") or self.table.get("dtype") or "float32"
        return _DTYPES.get(str(named), str(named)[:16])

    def wrong(self, field: str, value: object, rule: str) -> NoReturn:
        raise _wrong(self.path, self.prefix + field, value, rule)


def read_json_object(path: Path) -> dict[str, Any]:
    """A small JSON file that must hold one object of finite numbers. Raises: SpecError naming the file."""
    if not path.is_file():
        raise SpecError(f"{path.name} is missing beside the weights: fetch the whole repository")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise SpecError(f"{path.name} holds {path.stat().st_size} bytes, must be at most {MAX_CONFIG_BYTES}")

    def refuse(text: str) -> NoReturn:
        raise _wrong(path, "a number", text, "must be finite")

    try:
        table = json.loads(path.read_bytes(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path.name} is not JSON ({error}): fetch the model again") from error
    if not isinstance(table, dict):
        raise SpecError(f"{path.name} holds a {type(table).__name__}, must hold a JSON object")
    return table


def _usual_dtype(headers: tuple[SafetensorsFile, ...]) -> str | None:
    elements: Counter[str] = Counter()
    for header in headers:
        for tensor in header.tensors:
            elements[tensor.dtype.lower()] += tensor.num_elements
    return elements.most_common(1)[0][0] if elements else None


def _check_embedding(headers: tuple[SafetensorsFile, ...], info: ModelInfo) -> None:
    """The embedding's width must be config.json's: a cheap proof that the two belong together (D-08)."""
    for header in headers:
        for tensor in header.tensors:
            if not tensor.name.endswith("embed_tokens.weight") or len(tensor.shape) != 2:
                continue
            rows, width = tensor.shape
            if width != info.hidden_size:
                rule = f"{tensor.name} in {header.path.name} is {width} wide"
                raise _wrong(header.path.with_name("config.json"), "hidden_size", info.hidden_size, rule)
            if rows < info.vocab_size:
                rule = f"{tensor.name} in {header.path.name} has {rows} rows"
                raise _wrong(header.path.with_name("config.json"), "vocab_size", info.vocab_size, rule)


def _sampling_defaults(path: Path, *, is_seq2seq: bool) -> SamplingOverrides:
    """The model's own settings, as vLLM reads them: the same fields, and nothing where nothing is said.

    An encoder-decoder model means its likeliest answer unless it says `do_sample`, and its longest one is its own.
    """
    if not path.is_file():
        return SamplingOverrides(temperature=0.0) if is_seq2seq else SamplingOverrides()
    table = read_json_object(path)
    found: dict[str, Any] = {}
    if is_seq2seq:
        if table.get("do_sample") is not True:
            return SamplingOverrides(temperature=0.0, max_tokens=_max_new_tokens(path, table))
        found["max_tokens"] = _max_new_tokens(path, table)
    for field in _GENERATION_FIELDS:
        value = table.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(path, field, value, "must be a number")
        found[field] = int(value) if field == "top_k" else float(value)
    return SamplingOverrides(**found)


def _max_new_tokens(path: Path, table: dict[str, Any]) -> int | None:
    value = table.get("max_new_tokens")
    if value is not None and (type(value) is not int or value < 1):
        raise _wrong(path, "max_new_tokens", value, "must be an integer, at least 1")
    return value


def _wrong(path: Path, field: str, value: object, rule: str) -> SpecError:
    shown = value if isinstance(value, str) else repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return SpecError(f"{path.name}: {field!r} is {shown}: {rule}; fetch the model again or correct the file")
