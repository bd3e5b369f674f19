"""A tokenizer out of Hugging Face files: tokenizer.json does the work, the small files around it tell the roles.

tokenizer.json          model, normaliser, pre-tokenizer, added tokens: read by the `tokenizers` library as it stands
tokenizer_config.json   bos, eos, unk, pad; add_bos_token; chat_template (a string, or a list of named ones)
special_tokens_map.json the same roles, in checkpoints whose tokenizer_config.json leaves them out
generation_config.json  eos_token_id, often a list: every token that ends an answer
chat_template.jinja     the template in a file of its own, which wins (transformers 4.52 and later write it so)

Nothing here runs code from the checkpoint: `auto_map` and Python files beside it are not looked at (D-11).
Source: transformers, tokenization_utils_base.py (`_from_pretrained`, `save_chat_templates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import tokenizers

from argosy.core.errors import SpecError
from argosy.text.byte_alphabet import ByteAlphabet
from argosy.text.library_errors import as_spec_error
from argosy.text.vocabulary import Vocabulary, end_token_ids, is_turn_mark

MAX_TOKENIZER_BYTES = 128 * 2**20
MAX_CONFIG_BYTES = 8 * 2**20
# Tokenizer classes whose add_bos_token and add_eos_token overrule tokenizer.json.
# Source: their `update_post_processor`.
_CONFIG_RULES = ("Llama", "CodeLlama", "Gemma", "Cohere")


def read_hf_tokenizer(root: Path) -> tuple[tokenizers.Tokenizer, Vocabulary]:
    """The tokenizer of a Hugging Face folder. Raises: SpecError naming the file and what is wrong in it."""
    path = root / "tokenizer.json"
    if not path.is_file():
        raise SpecError(
            f"{path} does not exist: this model has no tokenizer we can read; convert its tokenizer with "
            "transformers (AutoTokenizer.from_pretrained(...).save_pretrained(...)) or use its GGUF file"
        )
    source = _read_bounded(path, MAX_TOKENIZER_BYTES)
    with as_spec_error(f"{path} is not a valid tokenizer.json"):
        engine = tokenizers.Tokenizer.from_buffer(source)
        parts = msgspec.json.decode(source, type=_TokenizerParts)
    config = _read_json(root / "tokenizer_config.json")
    roles = _roles(config, _read_json(root / "special_tokens_map.json"))
    return engine, _facts(engine, parts, config, roles, root)


class _TokenizerParts(msgspec.Struct):
    """The parts of tokenizer.json that say how bytes are spelled; the large ones are skipped unparsed."""

    decoder: dict[str, Any] | None = None
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None


def _facts(
    engine: tokenizers.Tokenizer,
    parts: _TokenizerParts,
    config: Mapping[str, Any],
    roles: Mapping[str, str],
    root: Path,
) -> Vocabulary:
    added = engine.get_added_tokens_decoder()
    special = {token.content: index for index, token in added.items() if token.special}
    reserved = special | {token.content: index for index, token in added.items() if is_turn_mark(token.content)}
    ids: dict[str, int] = {}
    for role, token in roles.items():
        index = engine.token_to_id(token)
        if index is not None:
            ids[role] = index
    eos_ids = _eos_ids(root) | ({ids["eos"]} if "eos" in ids else set())
    prefix, suffix = _around(engine, config, ids)
    return Vocabulary(
        size=engine.get_vocab_size(with_added_tokens=True),
        alphabet=_alphabet(parts.decoder),
        special_tokens=special,
        reserved_tokens=reserved,
        bos_token_id=ids.get("bos"),
        eos_token_id=ids.get("eos"),
        eos_token_ids=frozenset(eos_ids | end_token_ids(reserved)),
        unk_token_id=ids.get("unk"),
        pad_token_id=ids.get("pad"),
        prefix_ids=prefix,
        suffix_ids=suffix,
        is_space_prefixed=_strips_space(parts.decoder),
        chat_template=_chat_template(root, config),
    )


def _alphabet(decoder: Mapping[str, Any] | None) -> ByteAlphabet:
    kinds = _decoder_kinds(decoder)
    if "ByteLevel" in kinds:
        return ByteAlphabet.BYTE_LEVEL
    return ByteAlphabet.WORDPIECE if "WordPiece" in kinds else ByteAlphabet.SENTENCEPIECE


def _decoder_kinds(decoder: Mapping[str, Any] | None) -> list[str]:
    if decoder is None:
        return []
    steps = decoder.get("decoders", []) if decoder.get("type") == "Sequence" else [decoder]
    return [str(step.get("type")) for step in steps]


def _strips_space(decoder: Mapping[str, Any] | None) -> bool:
    """Whether decoding takes one space off the front: a Strip step, a Metaspace that prepends, or WordPiece."""
    if decoder is None:
        return False
    for step in decoder.get("decoders", []) if decoder.get("type") == "Sequence" else [decoder]:
        if step.get("type") == "Strip" and step.get("start", 0):
            return True
        if step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            return bool(step.get("add_prefix_space", True))
        if step.get("type") == "WordPiece":
            return True
    return False


def _around(
    engine: tokenizers.Tokenizer, config: Mapping[str, Any], ids: Mapping[str, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What encoding with special tokens puts before and after a text, found by trying it once."""
    plain, whole = engine.encode("a", add_special_tokens=False).ids, engine.encode("a").ids
    start = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)
    prefix, suffix = tuple(whole[:start]), tuple(whole[start + len(plain) :])
    if str(config.get("tokenizer_class", "")).startswith(_CONFIG_RULES):
        prefix = _overruled(prefix, config.get("add_bos_token"), ids.get("bos"))
        suffix = _overruled(suffix, config.get("add_eos_token"), ids.get("eos"))
    return prefix, suffix


def _overruled(found: tuple[int, ...], flag: object, token_id: int | None) -> tuple[int, ...]:
    if not isinstance(flag, bool) or token_id is None:
        return found
    return (token_id,) if flag else ()


def _roles(*configs: Mapping[str, Any]) -> dict[str, str]:
    """Role (bos, eos, unk, pad) → token, from the first file that names it; a token is a string or an object."""
    roles: dict[str, str] = {}
    for role in ("bos", "eos", "unk", "pad"):
        for config in configs:
            value = config.get(f"{role}_token")
            content = value.get("content") if isinstance(value, dict) else value
            if isinstance(content, str) and content:
                roles.setdefault(role, content)
    return roles


def _eos_ids(root: Path) -> set[int]:
    """Every end token that generation_config.json, or else config.json, lists."""
    for name in ("generation_config.json", "config.json"):
        value = _read_json(root / name).get("eos_token_id")
        ids = value if isinstance(value, list) else [value]
        found = {token_id for token_id in ids if isinstance(token_id, int) and not isinstance(token_id, bool)}
        if found:
            return found
    return set()


def _chat_template(root: Path, config: Mapping[str, Any]) -> str | None:
    path = root / "chat_template.jinja"
    if path.is_file():
        return _read_bounded(path, MAX_CONFIG_BYTES).decode("utf-8", "replace")
    template = config.get("chat_template") or _read_json(root / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file, {} if there is no file. Raises: SpecError if it is something else."""
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(_read_bounded(path, MAX_CONFIG_BYTES), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise SpecError(f"{path} is not a JSON object: {error}; fetch the model again") from error


def _read_bounded(path: Path, max_bytes: int) -> bytes:
    size_bytes = path.stat().st_size
    if size_bytes > max_bytes:
        raise SpecError(f"{path} has {size_bytes:,} bytes; at most {max_bytes:,} are read: is this the right file?")
    return path.read_bytes()
