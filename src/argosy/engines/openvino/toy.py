"""The smallest model OpenVINO GenAI will step: one layer of zeros over a real vocabulary, as a GGUF file.

The constraint checker steps it, because the library compiles a grammar only inside step(), and one it cannot compile
leaves the pipeline unusable. So a stranger's grammar first meets this model, in a process of its own.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; tensor names of the llama family.
"""

from __future__ import annotations

import struct
from pathlib import Path

_WIDTH = 32
_STRING, _U32, _F32 = 8, 4, 6
_ALIGNMENT = 32
_F16, _F32_TENSOR = 1, 0

_METADATA: dict[str, tuple[int, str | int | float]] = {
    "general.architecture": (_STRING, "llama"),
    "general.file_type": (_U32, 1),
    "llama.block_count": (_U32, 1),
    "llama.context_length": (_U32, 64),
    "llama.embedding_length": (_U32, _WIDTH),
    "llama.feed_forward_length": (_U32, _WIDTH),
    "llama.attention.head_count": (_U32, 1),
    "llama.attention.head_count_kv": (_U32, 1),
    "llama.rope.freq_base": (_F32, 10000.0),
    "llama.attention.layer_norm_rms_epsilon": (_F32, 1e-5),
    "llama.rope.dimension_count": (_U32, _WIDTH),
}
_SQUARE = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_down", "ffn_gate", "ffn_up")


def write_toy_gguf(path: Path, vocab_size: int) -> None:
    """Write the model for a vocabulary of `vocab_size` tokens."""
    norms: list[tuple[str, tuple[int, ...]]] = [
        ("blk.0.attn_norm.weight", (_WIDTH,)),
        ("blk.0.ffn_norm.weight", (_WIDTH,)),
        ("output_norm.weight", (_WIDTH,)),
    ]
    matrices: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (_WIDTH, vocab_size))]
    matrices += [(f"blk.0.{name}.weight", (_WIDTH, _WIDTH)) for name in _SQUARE]
    tensors = [(name, shape, _F16, 2) for name, shape in matrices]
    tensors += [(name, shape, _F32_TENSOR, 4) for name, shape in norms]
    metadata = {**_METADATA, "llama.vocab_size": (_U32, vocab_size)}
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, (kind, value) in metadata.items():
        head += _text(key) + struct.pack("<I", kind) + _value(kind, value)
    offset = 0
    for name, shape, kind, item_bytes in tensors:
        head += _text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)
        size = item_bytes
        for side in shape:
            size *= side
        offset += _aligned(size)
    head += bytes(_aligned(len(head)) - len(head))
    path.write_bytes(bytes(head) + bytes(offset))


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _value(kind: int, value: str | int | float) -> bytes:
    if kind == _STRING:
        return _text(str(value))
    return struct.pack("<I", value) if kind == _U32 else struct.pack("<f", value)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
