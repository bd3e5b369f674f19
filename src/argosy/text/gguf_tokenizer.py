"""A tokenizer out of GGUF metadata: the three vocabularies that GGUF files of language models carry.

`tokenizer.ggml.model` names the algorithm: "gpt2" is byte-level byte-pair encoding with explicit merges, "llama" is
sentencepiece byte-pair encoding whose merges follow from scores, "t5" is sentencepiece unigram. The model object is
built from the arrays directly (`models.BPE(vocab, merges)`): half the time of writing a tokenizer.json and parsing
it again, and this is on the start-up path.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "Tokenizer"; llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from argosy.core.gguf import GgufFile, read_gguf
from argosy.text.byte_alphabet import ByteAlphabet
from argosy.text.library_errors import as_spec_error
from argosy.text.pre_tokenizers import PRE_TOKENIZERS, PreTokenizerRow, build_pre_tokenizer
from argosy.text.vocabulary import Vocabulary, end_token_ids, is_turn_mark

_PREFIX = "tokenizer.ggml."


# `tokenizer.ggml.token_type`; plain integers, because loops over 10^5 entries compare with them.
# Source: llama.h, `enum llama_token_type`.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def read_gguf_tokenizer(path: Path) -> tuple[tokenizers.Tokenizer, Vocabulary]:
    """The tokenizer inside a GGUF file. Raises: SpecError naming the field that is missing, wrong or unknown."""
    return build_gguf_tokenizer(read_gguf(path))


def build_gguf_tokenizer(file: GgufFile) -> tuple[tokenizers.Tokenizer, Vocabulary]:
    """The tokenizer that the metadata describe. Raises: SpecError as `read_gguf_tokenizer`."""
    kind = file.text(_PREFIX + "model")
    tokens = _strings(file, "tokens")
    types = _types(file, len(tokens))
    with as_spec_error(f"{file.path}: the tokenizer tables contradict each other"):
        if kind == "gpt2":
            row = _pre_tokenizer_row(file)
            engine, adds_bos = _byte_level(file, tokens, row), row.adds_bos
        elif kind == "llama":
            engine, adds_bos = _sentencepiece_bpe(file, tokens, types), True
        elif kind == "t5":
            engine, adds_bos = _sentencepiece_unigram(file, tokens), False
        else:
            raise file.wrong(_PREFIX + "model", kind, "must be gpt2, llama or t5: other tokenizers are not read")
    vocabulary = _facts(file, tokens, types, adds_bos)
    engine.add_tokens(_added_tokens(tokens, types, vocabulary.reserved_tokens))
    return engine, vocabulary


def _byte_level(file: GgufFile, tokens: Sequence[str], row: PreTokenizerRow) -> tokenizers.Tokenizer:
    merges = [tuple(merge.split(" ", 1)) for merge in _strings(file, "merges")]
    vocab = dict(zip(tokens, range(len(tokens)), strict=True))
    # Checked here, because the library panics where it should raise.
    known = vocab.keys()
    for merge, pair in zip(_strings(file, "merges"), merges, strict=True):
        if (
            len(pair) != 2
            or not all(pair)
            or pair[0] not in known
            or pair[1] not in known
            or pair[0] + pair[1] not in known
        ):
            raise file.wrong(_PREFIX + "merges", merge, "must be two tokens, a space between, that join to a token")
    model = models.BPE(vocab, merges, ignore_merges=row.ignore_merges)  # type: ignore[arg-type]  # pairs, checked by it
    engine = tokenizers.Tokenizer(model)
    engine.pre_tokenizer = build_pre_tokenizer(row)
    if row.composes:
        engine.normalizer = normalizers.NFC()
    return engine


def _sentencepiece_bpe(file: GgufFile, tokens: Sequence[str], types: Sequence[int]) -> tokenizers.Tokenizer:
    vocab = dict(zip(tokens, range(len(tokens)), strict=True))
    scores = _scores(file, len(tokens))
    unknown = _token_id(file, "unknown", len(tokens), 0)
    model = models.BPE(
        vocab,
        merges_from_scores(tokens, scores, types),
        unk_token=None if unknown is None else tokens[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    engine = tokenizers.Tokenizer(model)
    steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    if _flag(file, "add_space_prefix", True):
        steps.insert(0, normalizers.Prepend("▁"))
    engine.normalizer = normalizers.Sequence(steps)
    return engine


def _sentencepiece_unigram(file: GgufFile, tokens: Sequence[str]) -> tokenizers.Tokenizer:
    scores = _scores(file, len(tokens))
    unknown = _token_id(file, "unknown", len(tokens), 2)
    engine = tokenizers.Tokenizer(models.Unigram(list(zip(tokens, scores, strict=True)), unknown, False))
    charsmap = file.metadata.get(_PREFIX + "precompiled_charsmap")
    steps: list[normalizers.Normalizer] = []
    if isinstance(charsmap, tuple):
        steps.append(normalizers.Precompiled(bytes(int(byte) & 0xFF for byte in charsmap)))
    if _flag(file, "remove_extra_whitespaces", False):
        steps += [normalizers.Strip(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    if steps:
        engine.normalizer = normalizers.Sequence(steps)
    scheme = "always" if _flag(file, "add_space_prefix", True) else "never"
    engine.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)
    return engine


def merges_from_scores(tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> list[tuple[str, str]]:
    """The merges that a scored sentencepiece vocabulary means: any two entries that join to a third, best first.

    Source: sentencepiece bpe_model.cc; the conversion as in transformers, `generate_merges`.
    """
    mergeable = {NORMAL, USER_DEFINED, UNUSED}
    known = {token: index for index, token in enumerate(tokens) if types[index] in mergeable}
    found: list[tuple[float, int, int, str, str]] = []
    for token, index in known.items():
        for cut in range(1, len(token)):
            left = known.get(token[:cut])
            if left is None:
                continue
            right = known.get(token[cut:])
            if right is not None:
                found.append((-scores[index], left, right, token[:cut], token[cut:]))
    found.sort()
    return [(left, right) for _, _, _, left, right in found]


def _added_tokens(tokens: Sequence[str], types: Sequence[int], reserved_tokens: Mapping[str, int]) -> list[AddedToken]:
    """The entries that are found in raw text before any other step: specials, and words a user of the model added."""
    added = [AddedToken(token, special=True, normalized=False) for token in reserved_tokens]
    added.extend(
        AddedToken(tokens[index], special=False, normalized=False)
        for index in [index for index, kind in enumerate(types) if kind == USER_DEFINED]
        if tokens[index] and tokens[index] not in reserved_tokens
    )
    return added


def _facts(file: GgufFile, tokens: Sequence[str], types: Sequence[int], adds_bos: bool) -> Vocabulary:
    unusual = [(index, token_type) for index, token_type in enumerate(types) if token_type != NORMAL and tokens[index]]
    special = {tokens[index]: index for index, token_type in unusual if token_type in (CONTROL, UNKNOWN)}
    marks = {
        tokens[index]: index
        for index, token_type in unusual
        if token_type == USER_DEFINED and is_turn_mark(tokens[index])
    }
    reserved = special | marks
    kind = file.text(_PREFIX + "model")
    is_llama = kind == "llama"
    bos = _token_id(file, "bos", len(tokens), 1 if is_llama else None)
    eos = _token_id(file, "eos", len(tokens), 2 if is_llama else None)
    ends = {eos, _token_id(file, "eot", len(tokens), None), _token_id(file, "eom", len(tokens), None)}
    eos_ids = frozenset(index for index in ends if index is not None)
    adds_bos = _flag(file, "add_bos_token", adds_bos)
    adds_eos = _flag(file, "add_eos_token", kind == "t5")
    return Vocabulary(
        size=len(tokens),
        alphabet=ByteAlphabet.BYTE_LEVEL if kind == "gpt2" else ByteAlphabet.SENTENCEPIECE,
        special_tokens=special,
        reserved_tokens=reserved,
        bos_token_id=bos,
        eos_token_id=eos,
        eos_token_ids=eos_ids | end_token_ids(reserved),
        unk_token_id=_token_id(file, "unknown", len(tokens), None),
        pad_token_id=_token_id(file, "padding", len(tokens), None),
        prefix_ids=(bos,) if adds_bos and bos is not None else (),
        suffix_ids=(eos,) if adds_eos and eos is not None else (),
        is_space_prefixed=kind != "gpt2" and _flag(file, "add_space_prefix", True),
        chat_template=file.text("tokenizer.chat_template"),
    )


def _pre_tokenizer_row(file: GgufFile) -> PreTokenizerRow:
    name = file.text(_PREFIX + "pre", "gpt-2") or "gpt-2"
    if name not in PRE_TOKENIZERS:
        known = ", ".join(sorted(PRE_TOKENIZERS))
        raise file.wrong(
            _PREFIX + "pre", name, f"is not a known pre-tokenizer; known: {known}. Use the model's safetensors files"
        )
    return PRE_TOKENIZERS[name]


def _strings(file: GgufFile, name: str) -> tuple[str, ...]:
    values = file.strings(_PREFIX + name)
    if not values:
        raise file.wrong(_PREFIX + name, values, "must be a non-empty array of strings: the file has no tokenizer")
    return values


def _types(file: GgufFile, num_tokens: int) -> tuple[int, ...]:
    values = file.metadata.get(_PREFIX + "token_type")
    if values is None:
        return (NORMAL,) * num_tokens
    if not isinstance(values, tuple) or len(values) != num_tokens or not isinstance(values[0], int):
        raise file.wrong(_PREFIX + "token_type", values, f"must be {num_tokens} integers, one per token")
    return values  # type: ignore[return-value]  # arrays hold one type each, so the first item tells


def _scores(file: GgufFile, num_tokens: int) -> tuple[float, ...]:
    values = file.metadata.get(_PREFIX + "scores")
    if not isinstance(values, tuple) or len(values) != num_tokens or not isinstance(values[0], float):
        raise file.wrong(_PREFIX + "scores", values, f"must be {num_tokens} numbers, one per token")
    return values


def _flag(file: GgufFile, name: str, default: bool) -> bool:
    value = file.metadata.get(_PREFIX + name, default)
    if not isinstance(value, bool):
        raise file.wrong(_PREFIX + name, value, "must be true or false")
    return value


def _token_id(file: GgufFile, role: str, num_tokens: int, default: int | None) -> int | None:
    name = f"{_PREFIX}{role}_token_id"
    value = file.integer(name, default)
    if value is not None and not 0 <= value < num_tokens:
        if name not in file.metadata or value == 0xFFFFFFFF:
            return None
        raise file.wrong(name, value, f"must be below the vocabulary's {num_tokens} entries")
    return value
