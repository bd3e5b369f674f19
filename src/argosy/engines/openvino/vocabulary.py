"""The bytes of every token, in the only form OpenVINO GenAI takes them: a detokenizer model.

Constraints (JSON schema, regex, grammar) need to know what each token id spells; nothing else of the library's
tokenizer is used here. Building its full tokenizer from GGUF takes half of the start-up time, so this builds just the
one node whose constants the library reads.
Source: openvino.genai, tokenizer_impl.cpp (read_vocab_from_detokenizer_model); openvino_tokenizers, VocabDecoder.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import openvino
import openvino_genai
import openvino_tokenizers
from openvino.utils.node_factory import NodeFactory

from argosy.core.gguf import GgufValue

# GGUF token types. Source: ggml, enum llama_token_type.
_TYPE_UNKNOWN, _TYPE_CONTROL, _TYPE_BYTE = 2, 3, 6


def token_spellings(metadata: Mapping[str, GgufValue]) -> list[bytes] | None:
    """What each token id spells; b"" for control tokens, which no constraint may produce. None = unknown kind.

    Source: byte-level alphabet of GPT-2 (encoder.py, bytes_to_unicode); SentencePiece's U+2581 and <0xNN>.
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    types = metadata.get("tokenizer.ggml.token_type")
    model = metadata.get("tokenizer.ggml.model")
    if not isinstance(tokens, tuple) or model not in ("gpt2", "llama"):
        return None
    kinds: Sequence[Any] = types if isinstance(types, tuple) and len(types) == len(tokens) else (1,) * len(tokens)
    spell = _spell_byte_level if model == "gpt2" else _spell_sentencepiece
    alphabet = byte_level_alphabet()
    return [
        b"" if kind in (_TYPE_UNKNOWN, _TYPE_CONTROL) else spell(str(token), kind, alphabet)
        for token, kind in zip(tokens, kinds, strict=True)
    ]


def byte_level_alphabet() -> dict[int, int]:
    """Code point → byte, for str.translate. Source: GPT-2, encoder.py, bytes_to_unicode."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: byte for byte in printable} | {256 + rank: byte for rank, byte in enumerate(others)}


def _spell_byte_level(token: str, kind: int, alphabet: dict[int, int]) -> bytes:
    try:
        return token.translate(alphabet).encode("latin-1")
    except UnicodeEncodeError:
        return token.encode()


def _spell_sentencepiece(token: str, kind: int, alphabet: dict[int, int]) -> bytes:
    if kind == _TYPE_BYTE:
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()


def save_vocabulary(spellings: Sequence[bytes], eos_token_id: int, directory: Path) -> None:
    """Write what makes openvino_genai.Tokenizer(directory) know these spellings and nothing else."""
    ends = numpy.cumsum([len(spelling) for spelling in spellings], dtype=numpy.int32)
    begins = numpy.concatenate([numpy.zeros(1, numpy.int32), ends[:-1]])
    characters = numpy.frombuffer(b"".join(spellings), dtype=numpy.uint8)
    factory = _factory()
    ids = openvino.opset13.parameter([-1, -1], openvino.Type.i64)
    narrow = openvino.opset13.convert(ids, openvino.Type.i32)
    constants = [openvino.opset13.constant(array) for array in (begins, ends, characters)]
    decoder = factory.create("VocabDecoder", [narrow.output(0), *(node.output(0) for node in constants)], {})
    decoder.set_friendly_name("VocabDecoder")
    outputs = factory.create("StringTensorPack", decoder.outputs()[2:5], {}).outputs()
    model = openvino.Model(outputs, [ids], "detokenizer")
    openvino.save_model(model, directory / "openvino_detokenizer.xml")
    (directory / "config.json").write_text(json.dumps({"eos_token_id": eos_token_id}))


@cache
def _factory() -> Any:
    """Makes the tokenizers' nodes. Kept for good: unloading their library while such a node lives is a crash."""
    factory = NodeFactory()
    factory.add_extension(str(openvino_tokenizers._ext_path))
    return factory


def no_tokenizer() -> Any:
    """A tokenizer without a vocabulary, for models whose tokens cannot be spelled; constraints are refused then."""
    with tempfile.TemporaryDirectory() as directory:
        return openvino_genai.Tokenizer(directory)
